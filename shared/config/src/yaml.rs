//! YAML into types, with faults that name path, line, column, key and what was expected.

use crate::places::{Place, Places};
use serde::de::DeserializeOwned;
use serde_saphyr::Error as Yaml;

/// What is wrong with a text, and where.
#[derive(Debug)]
pub(crate) struct Fault {
    pub(crate) line: u64,
    pub(crate) column: u64,
    /// Key, fault, and what was expected.
    pub(crate) message: String,
}

impl Fault {
    pub(crate) fn new(place: Option<Place>, message: String) -> Fault {
        let (line, column) = place.unwrap_or((1, 1));
        Fault { line, column, message }
    }
}

/// Reads one document.
pub(crate) fn read<T: DeserializeOwned>(text: &str) -> Result<T, Fault> {
    serde_saphyr::from_str(text).map_err(|error| fault(&error, text))
}

fn fault(error: &Yaml, text: &str) -> Fault {
    let error = error.without_snippet();
    let place =
        error.location().map(|at| (at.line(), at.column())).filter(|place| *place != (0, 0));
    let places = Places::of(text);
    let message = message(error);
    // A check of the whole document names the field itself; its place is better than the document's.
    if let Some((field, rest)) = message.split_once(": ")
        && places.has(field)
    {
        return Fault::new(places.find(field), format!("{field}: {rest}"));
    }
    let about_key = matches!(
        error,
        Yaml::SerdeUnknownField { .. }
            | Yaml::DuplicateMappingKey { .. }
            | Yaml::SerdeMissingField { .. }
    );
    // A map's fault stands where its first key does, a list's where the key in front of it does.
    let container = message.starts_with("found map");
    match place.and_then(|place| places.path_at(place, container)) {
        // Where only the key's place is known, the value's is told.
        Some(key) if !about_key => Fault::new(places.find(key), format!("{key}: {message}")),
        Some(key) => Fault::new(place, format!("{key}: {message}")),
        None => Fault::new(place.or_else(|| places.find("")), message),
    }
}

fn message(error: &Yaml) -> String {
    match error {
        Yaml::SerdeUnknownField { field, expected, .. } => unknown("key", field, expected),
        Yaml::SerdeUnknownVariant { variant, expected, .. } => unknown("value", variant, expected),
        Yaml::SerdeMissingField { field, .. } => format!("{field} is missing"),
        Yaml::DuplicateMappingKey { .. } => "the key stands here twice".to_owned(),
        Yaml::SerdeInvalidType { unexpected, expected, .. }
        | Yaml::SerdeInvalidValue { unexpected, expected, .. } => {
            format!("found {unexpected}, expected {expected}")
        }
        Yaml::Unexpected { expected: "mapping start", .. } => {
            "expected keys with values, such as enabled: yes".to_owned()
        }
        Yaml::Unexpected { expected: "sequence start", .. } => "expected a list".to_owned(),
        Yaml::Message { msg, .. } => clean(msg),
        other => clean(&other.to_string()),
    }
}

fn clean(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default().trim();
    // The library writes the place in front or behind; it is told once, in our form.
    let line = line.strip_prefix("error: ").unwrap_or(line);
    let line = match line.strip_prefix("line ").and_then(|rest| rest.split_once(": ")) {
        Some((_, rest)) => rest,
        None => line,
    };
    match line.rfind(" at line ") {
        Some(at) => line.get(..at).unwrap_or(line).to_owned(),
        None => line.to_owned(),
    }
}

fn unknown(what: &str, found: &str, expected: &[&str]) -> String {
    let shown: String = found.chars().take(80).collect();
    let list = match expected {
        [] => "nothing".to_owned(),
        [one] => (*one).to_owned(),
        list => format!("one of {}", list.join(", ")),
    };
    match expected.iter().find(|word| close(found, word)) {
        Some(word) => format!("unknown {what} {shown:?}, did you mean {word:?}? expected {list}"),
        None => format!("unknown {what} {shown:?}, expected {list}"),
    }
}

/// Whether two words differ by at most two letters.
fn close(one: &str, other: &str) -> bool {
    let (one, other): (Vec<char>, Vec<char>) =
        (one.chars().take(64).collect(), other.chars().collect());
    let mut row: Vec<usize> = (0..=other.len()).collect();
    for (above, a) in one.iter().enumerate() {
        let mut diagonal = above;
        let mut left = above + 1;
        let mut next = vec![left];
        for (b, up) in other.iter().zip(row.iter().skip(1)) {
            left = (diagonal + usize::from(a != b)).min(left + 1).min(up + 1);
            diagonal = *up;
            next.push(left);
        }
        row = next;
    }
    row.last().is_some_and(|distance| *distance <= 2) && other.len() > 3
}

#[cfg(test)]
mod tests {
    use super::close;

    #[test]
    fn words_alike() {
        assert!(close("session_recoding", "session_recording"));
        assert!(close("enable", "enabled"));
        assert!(close("listen_adr", "listen_addr"));
        assert!(!close("tokens", "listen_addr"));
        assert!(!close("x", "spec"));
    }

    #[test]
    fn aliases_and_depth_do_not_blow_up() {
        let mut bomb = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for n in 1..30 {
            let one = format!("*a{}", n - 1);
            bomb += &format!("a{n}: &a{n} [{}]\n", [one.as_str(); 10].join(", "));
        }
        bomb += "kind: role\nmetadata: *a29\n";
        let deep = format!("kind: {}", "[".repeat(2_000));
        let deeper = format!("kind: role\nspec: {}", "{a: ".repeat(2_000));
        let block: String = (0..300).map(|n| format!("{}a:\n", " ".repeat(n))).collect();
        let began = std::time::Instant::now();
        let read = move || {
            assert!(crate::read_resources(&bomb, "bomb").is_err());
            for text in [deep, deeper, block] {
                assert!(crate::read_resources(&text, "bomb").is_err());
                assert!(crate::TeleportConfig::parse(&text, "bomb").is_err());
            }
        };
        // The stack of a program's first thread.
        let thread = std::thread::Builder::new().stack_size(8 * 1024 * 1024).spawn(read).unwrap();
        thread.join().unwrap();
        assert!(began.elapsed() < std::time::Duration::from_secs(20));
    }
}
