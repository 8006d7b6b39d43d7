//! Playing in time on a terminal: the clock and the keys. What the terminal gets is made by the
//! painter out of the screen model; no recorded byte reaches it.

use std::fs::File;
use std::io::{IsTerminal, Write};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::{Duration, Instant};

use shared_cli::{CliError, ExitCode, RawMode};
use shared_recording::grep::Pattern;
use shared_recording::player::{Action, Player, Step};
use shared_recording::screen::Size;
use shared_recording::timeline::{Pace, Timeline};
use shared_recording::view::{Frame, Painter};
use shared_recording::{DecodeError, Filter, database};

use super::bar::Bar;
use super::keys::{self, Key};
use super::search::{Found, Search};
use super::source::{Reader, Source};
use super::{damaged, warn_about_chain};

/// How far an arrow key goes.
const JUMP_MS: u64 = 10_000;
/// The longest wait: how late a changed window and the clock may be shown.
const TICK: Duration = Duration::from_millis(200);
/// The least time between two frames while output comes without end.
const FRAME: Duration = Duration::from_millis(30);
/// How long something said stays in the progress line.
const SAID: Duration = Duration::from_secs(4);
/// Messages that wait; who sends more waits too.
const QUEUE: usize = 1024;

/// What the other threads tell.
#[derive(Debug)]
pub(super) enum Message {
    Key(Key),
    Length(u64),
    Match { number: u64, at_ms: u64 },
    Searched { number: u64 },
}

/// How to begin.
pub(super) struct Options {
    pub(super) pace: Pace,
    /// Where, in milliseconds since the first output.
    pub(super) at_ms: u64,
    pub(super) pattern: Option<Pattern>,
}

/// Plays to the end, or until a key ends it.
pub(super) fn play(source: &Source, options: Options) -> Result<ExitCode, CliError> {
    let (sender, messages) = sync_channel(QUEUE);
    let raw_mode = listen(&sender)?;
    measure(source, &sender);
    let mut viewer = Viewer {
        player: Player::new(source.decoder()),
        painter: Painter::default(),
        out: std::io::stdout().lock(),
        source,
        sender,
        pace: options.pace,
        paused: false,
        here_ms: 0,
        since: Instant::now(),
        length_ms: None,
        bar: true,
        typing: None,
        said: None,
        search: None,
        searches: 0,
        window: Size::default(),
        drawn: None,
    };
    let result = viewer.begin(options.at_ms, options.pattern).and_then(|()| viewer.run(&messages));
    viewer.leave()?;
    drop(raw_mode);
    if result? {
        warn_about_chain(viewer.player.decoder());
    }
    Ok(ExitCode::Done)
}

/// Reads keys on a thread of its own, which ends with the program: from standard input, or from the
/// terminal itself where that brings the recording.
fn listen(sender: &SyncSender<Message>) -> Result<RawMode, CliError> {
    let sender = sender.clone();
    let take = move |key| sender.send(Message::Key(key)).is_ok();
    if std::io::stdin().is_terminal() {
        let raw_mode = RawMode::enter()?;
        std::thread::spawn(move || keys::read(std::io::stdin().lock(), take));
        return Ok(raw_mode);
    }
    let terminal = File::open("/dev/tty")
        .map_err(|error| CliError::wrap("read keys from the terminal", &error))?;
    let raw_mode = RawMode::on(terminal.try_clone()?)?;
    std::thread::spawn(move || keys::read(terminal, take));
    Ok(raw_mode)
}

/// Finds out how long the recording is.
fn measure(source: &Source, sender: &SyncSender<Message>) {
    let (decoder, sender) = (source.decoder(), sender.clone());
    std::thread::spawn(move || {
        let (timeline, _) = Timeline::read(database::shown(decoder));
        sender.send(Message::Length(timeline.duration_ms)).ok();
    });
}

/// One playback.
struct Viewer<'a> {
    player: Player<Reader>,
    painter: Painter,
    out: std::io::StdoutLock<'static>,
    source: &'a Source,
    sender: SyncSender<Message>,
    pace: Pace,
    paused: bool,
    /// Where playback was at the instant `since`.
    here_ms: u64,
    since: Instant,
    length_ms: Option<u64>,
    /// Whether the progress line shows.
    bar: bool,
    /// The pattern that is being typed.
    typing: Option<Vec<u8>>,
    said: Option<(String, Instant)>,
    search: Option<Search>,
    searches: u64,
    window: Size,
    /// What the progress line showed last, and whether the screen is as painted.
    drawn: Option<Bar>,
}

/// Whether to go on.
enum Next {
    On,
    Quit,
}

impl Viewer<'_> {
    fn begin(&mut self, at_ms: u64, pattern: Option<Pattern>) -> Result<(), CliError> {
        if at_ms > 0 {
            self.seek(at_ms)?;
        }
        if let Some(pattern) = pattern {
            self.find(pattern);
        }
        self.since = Instant::now();
        Ok(())
    }

    /// True when the end was reached.
    fn run(&mut self, messages: &Receiver<Message>) -> Result<bool, CliError> {
        let mut painted = Instant::now();
        self.paint(true)?;
        let mut changed = false;
        loop {
            let wait = match self.player.next_at().map_err(|error| self.broken(&error))? {
                _ if self.paused => TICK,
                Some(next) => {
                    let wait = self.pace.wait(self.here_ms, next);
                    let left = wait.saturating_sub(self.since.elapsed());
                    if left.is_zero() {
                        self.step(wait)?;
                        changed = true;
                        // However fast output comes, keys are heard and something is shown.
                        if painted.elapsed() < FRAME {
                            continue;
                        }
                    }
                    left
                }
                None => {
                    self.paint(true)?;
                    return Ok(true);
                }
            };
            self.paint(changed)?;
            (changed, painted) = (false, Instant::now());
            match messages.recv_timeout(wait.min(TICK)) {
                Ok(message) => match self.take(message)? {
                    Next::On => changed = true,
                    Next::Quit => return Ok(false),
                },
                Err(RecvTimeoutError::Timeout) => {}
                // There is a sender here, so this does not happen.
                Err(RecvTimeoutError::Disconnected) => return Ok(false),
            }
        }
    }

    fn step(&mut self, wait: Duration) -> Result<(), CliError> {
        let step = self.player.step().map_err(|error| self.broken(&error))?;
        if let Some(Step { at_ms, action }) = step {
            self.here_ms = at_ms;
            self.since = self.since.checked_add(wait).unwrap_or_else(Instant::now);
            if let Action::Gap(gap) = action {
                self.say(format!("{} bytes of output were not recorded here", gap.bytes));
            }
        }
        Ok(())
    }

    /// Shows what was played before the damage.
    fn broken(&self, error: &DecodeError) -> CliError {
        damaged(error)
    }

    /// Where playback is now.
    fn position(&mut self) -> u64 {
        if self.paused {
            return self.here_ms;
        }
        let passed = self.here_ms.saturating_add(self.pace.passes(self.since.elapsed()));
        // What comes next has not come yet.
        match self.player.next_at() {
            Ok(Some(next)) => passed.min(next),
            _ => self.here_ms,
        }
    }

    /// Makes the present the point from which time is counted.
    fn settle(&mut self) {
        self.here_ms = self.position();
        self.since = Instant::now();
    }

    fn seek(&mut self, to_ms: u64) -> Result<(), CliError> {
        self.player.seek(to_ms).map_err(|error| self.broken(&error))?;
        self.here_ms = self.player.position_ms();
        self.since = Instant::now();
        Ok(())
    }

    fn say(&mut self, text: String) {
        self.said = Some((text, Instant::now()));
    }

    fn take(&mut self, message: Message) -> Result<Next, CliError> {
        match message {
            Message::Key(key) if self.typing.is_some() => self.type_key(key),
            Message::Key(key) => return self.press(key),
            Message::Length(length) => self.length_ms = Some(length),
            Message::Match { number, at_ms } => {
                if let Some(search) = self.search.as_mut().filter(|search| search.is(number)) {
                    search.add(at_ms);
                    self.go_to_match()?;
                }
            }
            Message::Searched { number } => {
                if let Some(search) = self.search.as_mut().filter(|search| search.is(number)) {
                    search.end();
                    self.go_to_match()?;
                }
            }
        }
        Ok(Next::On)
    }

    fn press(&mut self, key: Key) -> Result<Next, CliError> {
        match key {
            Key::Quit | Key::Byte(b'q') => return Ok(Next::Quit),
            Key::Byte(b' ') => {
                self.settle();
                self.paused = !self.paused;
            }
            Key::Left => {
                let to = self.position().saturating_sub(JUMP_MS);
                self.seek(to)?;
            }
            Key::Right => {
                let to = self.position().saturating_add(JUMP_MS);
                self.seek(to)?;
            }
            Key::Up | Key::Byte(b'+' | b'=') => self.change_pace(true),
            Key::Down | Key::Byte(b'-') => self.change_pace(false),
            Key::Byte(b'/') => self.typing = Some(Vec::new()),
            Key::Byte(b'n') => self.next_match()?,
            Key::Byte(b'N') => {
                let here = self.position();
                match self.search.as_ref().and_then(|search| search.before(here)) {
                    Some(at) => self.seek(at)?,
                    None => self.say("no match before this".to_owned()),
                }
            }
            Key::Byte(b'b') => {
                self.bar = !self.bar;
                self.painter.reset();
            }
            Key::Byte(_) | Key::Enter | Key::Backspace => {}
        }
        Ok(Next::On)
    }

    fn change_pace(&mut self, faster: bool) {
        self.settle();
        self.pace = self.pace.changed(faster);
    }

    fn type_key(&mut self, key: Key) {
        let Some(typed) = &mut self.typing else { return };
        match key {
            Key::Byte(byte) if typed.len() < 1024 => typed.push(byte),
            Key::Backspace if !typed.is_empty() => {
                // The whole character.
                while typed.pop().is_some_and(|byte| (0x80..0xc0).contains(&byte)) {}
            }
            Key::Backspace | Key::Quit => self.typing = None,
            Key::Enter => {
                let text = String::from_utf8_lossy(typed).into_owned();
                self.typing = None;
                if text.is_empty() {
                    self.search = None;
                    return;
                }
                match text.parse() {
                    Ok(pattern) => self.find(pattern),
                    Err(_) => self.say(format!("{text} is no pattern")),
                }
            }
            _ => {}
        }
    }

    /// Searches the recording, and goes to the first match from here on.
    fn find(&mut self, pattern: Pattern) {
        self.searches += 1;
        let mut search = Search::begin(self.source, pattern, self.searches, &self.sender);
        search.want(self.position(), true);
        self.search = Some(search);
    }

    fn next_match(&mut self) -> Result<(), CliError> {
        let here = self.position();
        match &mut self.search {
            Some(search) => search.want(here, false),
            None => self.say("type / and a pattern first".to_owned()),
        }
        self.go_to_match()
    }

    fn go_to_match(&mut self) -> Result<(), CliError> {
        let Some(search) = &mut self.search else { return Ok(()) };
        match search.answer() {
            Some(Found::At(at)) => {
                let count = search.count();
                self.seek(at)?;
                self.say(count);
            }
            Some(Found::No) => self.say("no match behind this".to_owned()),
            Some(Found::NotYet) => self.say("searching…".to_owned()),
            None => {}
        }
        Ok(())
    }

    /// Brings the terminal up to date.
    fn paint(&mut self, changed: bool) -> Result<(), CliError> {
        let window = viewer();
        let resized = window != self.window;
        self.window = window;
        let at_ms = self.position();
        // The clock moves by seconds.
        let mut bar = Bar::new(at_ms - at_ms % 1000, self.length_ms, self.paused, self.pace);
        if let Some(typed) = &self.typing {
            bar.text = format!("/{}", String::from_utf8_lossy(typed));
        } else if let Some((text, _)) = self.said.as_ref().filter(|(_, at)| at.elapsed() < SAID) {
            bar.text.clone_from(text);
        }
        if !changed && !resized && self.drawn.as_ref() == Some(&bar) {
            return Ok(());
        }
        let with_bar = self.bar && window.rows > 2;
        let rows = if with_bar { window.rows - 1 } else { window.rows };
        let inner = Size { rows, ..window };
        let mut frame = Frame::fit(self.player.screen(), inner);
        if let Some(search) = &self.search {
            for row in &mut frame.rows {
                *row = search.pattern.highlight(row);
            }
        }
        let mut painted = self.painter.paint(&frame, inner);
        if with_bar {
            let line = bar.line(usize::from(window.columns));
            painted.push_str(&format!("\x1b7\x1b[{};1H\x1b[0;7m{line}\x1b[0m", window.rows));
            if line.len() < usize::from(window.columns) {
                painted.push_str("\x1b[K");
            }
            painted.push_str("\x1b8");
        }
        self.drawn = Some(bar);
        self.out.write_all(painted.as_bytes())?;
        self.out.flush()?;
        Ok(())
    }

    /// Leaves what was shown, without the progress line, and the cursor below it.
    fn leave(&mut self) -> Result<(), CliError> {
        self.out.write_all(Filter::restore())?;
        write!(self.out, "\x1b[{};1H\x1b[K", self.window.rows)?;
        self.out.flush()?;
        Ok(())
    }
}

/// The viewer's terminal.
fn viewer() -> Size {
    match rustix::termios::tcgetwinsize(rustix::stdio::stdout()) {
        Ok(size) if size.ws_col > 0 && size.ws_row > 0 => {
            Size { columns: size.ws_col, rows: size.ws_row }
        }
        _ => Size::default(),
    }
}
