//! The prepared statements of a connection: how many parameters each has, and of which types.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::Arc;

use super::Malformed;
use super::parameters::{self, Known, Parameters};
use super::text::Text;
use super::value::Kind;

/// Statements at a time; servers allow 16,382 unless told otherwise.
const MAX_STATEMENTS: usize = 65_536;
/// What is kept of all statements together, in bytes.
const MAX_KEPT: usize = 4 << 20;
/// As long as there is less, texts are kept.
const MAX_TEXTS: usize = 256 << 10;
/// The longest text that is kept.
const MAX_TEXT: usize = 32 << 10;
/// MariaDB: the statement prepared last.
const LAST: u32 = u32::MAX;

#[derive(Debug, Default)]
struct Statement {
    /// How many parameters; only counted in the text as long as the server has not said it.
    count: usize,
    types: Vec<Kind>,
    /// Bytes sent ahead, of each parameter.
    long: BTreeMap<u16, u64>,
    text: Option<Arc<str>>,
}

impl Statement {
    /// What it takes, in bytes.
    fn kept(&self) -> usize {
        let text = self.text.as_ref().map_or(0, |text| text.len());
        size_of_val(self.types.as_slice()) + self.long.len() * size_of::<(u16, u64)>() + text
    }
}

/// An execution, as far as it is known.
#[derive(Debug, PartialEq)]
pub(super) struct Executed {
    /// The id of the statement, where it stood for another.
    pub(super) id: u32,
    /// What was prepared.
    pub(super) text: Option<Arc<str>>,
    pub(super) parameters: Vec<String>,
}

#[derive(Debug, Default)]
pub(super) struct Statements {
    known: HashMap<u32, Statement>,
    /// Those whose preparation the server has not answered, oldest first.
    unborn: VecDeque<Statement>,
    last: Option<u32>,
    kept: usize,
}

/// How the parameters of an execution are laid out.
type Read = fn(&[u8], &Known<'_>, usize, bool) -> Option<Parameters>;

impl Statements {
    /// A client asks for a statement with, as it seems, so many parameters.
    pub(super) fn conceive(&mut self, count: usize, text: Text<'_>) {
        let fits = text.cut.is_none() && text.bytes.len() <= MAX_TEXT && self.kept < MAX_TEXTS;
        let text = fits.then(|| Arc::from(text.to_text()));
        let statement = Statement { count, text, ..Statement::default() };
        self.kept += statement.kept();
        self.unborn.push_back(statement);
    }

    /// The server has prepared the oldest that was asked for.
    pub(super) fn born(&mut self, id: u32, count: u16) -> Result<(), Malformed> {
        let mut statement = self.unborn.pop_front().unwrap_or_default();
        let count = usize::from(count);
        if statement.count != count {
            self.kept -= statement.kept();
            statement.types = Vec::new();
            statement.count = count;
            self.kept += statement.kept();
        }
        self.last = Some(id);
        if let Some(before) = self.known.insert(id, statement) {
            self.kept -= before.kept();
        }
        if self.known.len() > MAX_STATEMENTS {
            return Err(Malformed::new("too many prepared statements in one connection"));
        }
        Ok(())
    }

    /// The server has refused to prepare the oldest that was asked for.
    pub(super) fn stillborn(&mut self) {
        if let Some(statement) = self.unborn.pop_front() {
            self.kept -= statement.kept();
        }
    }

    pub(super) fn close(&mut self, id: u32) {
        if let Some(statement) = self.known.remove(&id) {
            self.kept -= statement.kept();
        }
    }

    /// What was sent ahead is forgotten.
    pub(super) fn reset(&mut self, id: u32) {
        if let Some(statement) = self.known.get_mut(&id) {
            let before = statement.kept();
            statement.long.clear();
            self.kept -= before - statement.kept();
        }
    }

    /// The server has forgotten all it has prepared so far.
    pub(super) fn clear(&mut self) {
        self.known.clear();
        self.last = None;
        self.kept = self.unborn.iter().map(Statement::kept).sum();
    }

    /// The id that `id` stands for, if that is known.
    fn resolve(&self, id: u32) -> u32 {
        match (id, self.unborn.back(), self.last) {
            (LAST, None, Some(last)) => last,
            _ => id,
        }
    }

    fn get_mut(&mut self, id: u32) -> Option<&mut Statement> {
        match self.resolve(id) {
            LAST => self.unborn.back_mut(),
            id => self.known.get_mut(&id),
        }
    }

    pub(super) fn long_data(
        &mut self,
        id: u32,
        parameter: u16,
        size: u64,
    ) -> Result<(), Malformed> {
        let Some(statement) = self.get_mut(id) else { return Ok(()) };
        let before = statement.kept();
        let sum = statement.long.entry(parameter).or_default();
        *sum = sum.saturating_add(size);
        let after = statement.kept();
        self.account(before, after)
    }

    /// Reads the parameters of an execution of `id`.
    pub(super) fn execute(
        &mut self,
        id: u32,
        body: Text<'_>,
        room: usize,
    ) -> Result<Executed, Malformed> {
        let executed = self.run(id, body, room, parameters::one)?;
        // The server uses up what was sent ahead.
        if let Some(statement) = self.get_mut(id) {
            let before = statement.kept();
            statement.long.clear();
            self.kept -= before - statement.kept();
        }
        Ok(executed)
    }

    /// The same for MariaDB's bulk execution.
    pub(super) fn bulk(
        &mut self,
        id: u32,
        body: Text<'_>,
        room: usize,
    ) -> Result<Executed, Malformed> {
        self.run(id, body, room, parameters::bulk)
    }

    fn run(
        &mut self,
        id: u32,
        body: Text<'_>,
        room: usize,
        read: Read,
    ) -> Result<Executed, Malformed> {
        let id = self.resolve(id);
        let Some(statement) = self.get_mut(id) else {
            // The server says that it does not know it.
            return Ok(Executed { id, text: None, parameters: Parameters::unknown().shown });
        };
        let (bytes, cut) = (body.bytes, body.cut.is_some());
        let found = match id {
            LAST => statement.guess(bytes, room, cut, read),
            _ => statement
                .read(statement.count, bytes, room, cut, read)
                .ok_or_else(|| Malformed::new(format!("parameters of statement {id}")))?,
        };
        let before = statement.kept();
        if let Some(types) = found.types {
            statement.types = types;
        }
        let after = statement.kept();
        let text = statement.text.clone();
        self.account(before, after)?;
        Ok(Executed { id, text, parameters: found.shown })
    }

    fn account(&mut self, before: usize, after: usize) -> Result<(), Malformed> {
        self.kept = (self.kept + after).saturating_sub(before);
        if self.kept > MAX_KEPT {
            return Err(Malformed::new(
                "too many parameters of prepared statements in one connection",
            ));
        }
        Ok(())
    }
}

impl Statement {
    fn read(
        &self,
        count: usize,
        body: &[u8],
        room: usize,
        cut: bool,
        read: Read,
    ) -> Option<Parameters> {
        read(body, &Known { count, types: &self.types, long: Some(&self.long) }, room, cut)
    }

    /// The server has not said how many parameters there are: as many as the text has, if that fits exactly; else what
    /// does.
    fn guess(&mut self, body: &[u8], room: usize, cut: bool, read: Read) -> Parameters {
        let likely = [self.count].into_iter().chain(0..=MOST_GUESSED);
        for count in likely {
            let found = self.read(count, body, room, cut, read);
            if let Some(found) = found.filter(|found| found.exact || (cut && count == self.count)) {
                self.count = count;
                return found;
            }
        }
        Parameters::unknown()
    }
}

/// The text is read as the server reads it but in odd modes, so what is tried beyond it is little.
const MOST_GUESSED: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    const ROOM: usize = 1000;
    /// One parameter, a byte, types along.
    const ONE: &[u8] = &[0, 1, 1, 0, 7];

    fn text(bytes: &[u8]) -> Text<'_> {
        Text { bytes, size: bytes.len() as u64, cut: None }
    }

    fn prepared() -> Statements {
        let mut statements = Statements::default();
        statements.conceive(1, text(b"select ?"));
        statements.born(5, 1).unwrap();
        statements
    }

    fn executed(statements: &mut Statements, id: u32, body: &[u8]) -> (u32, String) {
        let executed = statements.execute(id, text(body), ROOM).unwrap();
        (executed.id, executed.parameters.join(","))
    }

    #[test]
    fn types_and_text_are_remembered_until_the_statement_is_closed() {
        let mut statements = prepared();
        assert_eq!(executed(&mut statements, 5, ONE), (5, "7".into()));
        let again = statements.execute(5, text(&[0, 0, 8]), ROOM).unwrap();
        assert_eq!(
            (again.parameters, again.text.as_deref()),
            (vec!["8".to_owned()], Some("select ?"))
        );
        statements.close(5);
        assert_eq!(executed(&mut statements, 5, &[0, 0, 8]), (5, "<unknown>".into()));
        assert_eq!(statements.kept, 0);
    }

    #[test]
    fn what_does_not_fit_is_malformed() {
        let error = prepared().execute(5, text(&ONE[..4]), ROOM).unwrap_err();
        assert_eq!(error.to_string(), "parameters of statement 5");
    }

    #[test]
    fn the_last_one_may_be_executed_before_it_is_answered() {
        let mut statements = prepared();
        // Counted wrongly on purpose: what fits exactly is taken.
        for count in [1, 4] {
            statements.conceive(count, text(b"x"));
            assert_eq!(executed(&mut statements, LAST, ONE), (LAST, "7".into()));
        }
        statements.born(6, 1).unwrap();
        statements.born(7, 1).unwrap();
        assert_eq!(executed(&mut statements, LAST, &[0, 0, 9]), (7, "9".into()));
        assert_eq!(executed(&mut statements, 6, &[0, 0, 9]), (6, "9".into()));
        statements.conceive(1, text(b"y"));
        statements.stillborn();
        statements.clear();
        assert_eq!(statements.kept, 0);
    }

    #[test]
    fn what_was_sent_ahead_is_used_up_by_one_execution() {
        let mut statements = prepared();
        statements.long_data(5, 0, 70).unwrap();
        statements.long_data(5, 0, 7).unwrap();
        assert_eq!(executed(&mut statements, 5, &ONE[..4]).1, "<long data: 77 bytes>");
        assert!(statements.execute(5, text(&[0, 0]), ROOM).is_err());
        statements.long_data(5, 0, 1).unwrap();
        statements.reset(5);
        assert_eq!(executed(&mut statements, 5, &[0, 0, 3]).1, "3");
    }

    #[test]
    fn what_is_kept_has_a_limit() {
        let mut statements = prepared();
        let mut body = vec![0xff; 8192];
        body.push(1);
        body.resize(body.len() + 2 * 65_535, 0);
        let refused = (0..40).find_map(|id| {
            statements.conceive(65_535, text(b"x"));
            statements.born(id, u16::MAX).unwrap();
            statements.execute(id, text(&body), ROOM).err()
        });
        assert!(refused.unwrap().to_string().starts_with("too many parameters"));
        let long = vec![b'x'; MAX_TEXT];
        let mut statements = prepared();
        for id in 0..100 {
            statements.conceive(0, text(&long));
            statements.born(id, 0).unwrap();
        }
        assert!(statements.kept <= MAX_TEXTS + MAX_TEXT);
    }
}
