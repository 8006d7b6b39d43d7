//! The progress line: where playback is, how long the recording is, how fast it goes.

use shared_recording::Position;
use shared_recording::timeline::Pace;

/// What the line tells.
#[derive(Debug, Default, Clone, PartialEq)]
pub(super) struct Bar {
    pub(super) at_ms: u64,
    /// Not known before the whole recording was read.
    pub(super) length_ms: Option<u64>,
    pub(super) paused: bool,
    pub(super) speed: f64,
    pub(super) skips_idle: bool,
    /// What is being typed, or else what there is to say.
    pub(super) text: String,
}

impl Bar {
    pub(super) fn new(at_ms: u64, length_ms: Option<u64>, paused: bool, pace: Pace) -> Self {
        let (speed, skips_idle) = (pace.speed(), pace.skips_idle());
        Self { at_ms, length_ms, paused, speed, skips_idle, text: String::new() }
    }

    /// The line in so many columns; all of it is ASCII but what was typed.
    pub(super) fn line(&self, columns: usize) -> String {
        let length = self.length_ms.map_or("--:--".to_owned(), |ms| Position(ms).to_string());
        let state = if self.paused { "paused " } else { "playing" };
        let idle = if self.skips_idle { "  idle skipped" } else { "" };
        let head = format!("{state} {} / {length}  {}x{idle}", Position(self.at_ms), self.speed);
        let text = shared_cli::printable(&self.text);
        let rest = columns.saturating_sub(head.len() + 4);
        let line = if !text.is_empty() {
            format!(" {head}  {text}")
        } else if rest >= 10 {
            format!(" {head}  {}", self.meter(rest))
        } else {
            format!(" {head}")
        };
        // A wide character that was typed takes two columns; then the line is cut earlier.
        let mut left = columns;
        line.chars()
            .take_while(|c| {
                let width = if c.is_ascii() { 1 } else { 2 };
                let fits = width <= left;
                left = left.saturating_sub(width);
                fits
            })
            .collect()
    }

    /// `[=====>    ]`
    fn meter(&self, columns: usize) -> String {
        let inner = columns.min(60).saturating_sub(2);
        let length = self.length_ms.unwrap_or(0).max(1) as f64;
        let done = ((self.at_ms as f64 / length).clamp(0.0, 1.0) * inner as f64) as usize;
        let head = if done < inner { ">" } else { "" };
        format!("[{:<inner$}]", format!("{}{head}", "=".repeat(done)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_fits_and_tells_all() {
        let pace = Pace::new(2.0, true).unwrap();
        let mut bar = Bar::new(30_000, Some(60_000), true, pace);
        assert_eq!(
            bar.line(70),
            " paused  00:30 / 01:00  2x  idle skipped  [============>            ]"
        );
        assert_eq!(bar.line(12), " paused  00:");
        bar.text = "/no \x1b[31mmatch 漢".into();
        assert_eq!(
            bar.line(70),
            " paused  00:30 / 01:00  2x  idle skipped  /no \\u{1b}[31mmatch 漢"
        );
        let bar = Bar::new(0, None, false, Pace::default());
        assert_eq!(bar.line(40), " playing 00:00 / --:--  1x  [>        ]");
    }
}
