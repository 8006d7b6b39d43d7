//! What the command line programs share: errors and exit codes, output formats, tables, prompts,
//! progress and logging. Nothing here knows a command.

#![cfg_attr(test, allow(clippy::unwrap_used))]

mod error;
mod format;
mod nodes;
mod output;
mod program;
mod progress;
mod prompt;
mod raw;
pub mod recordings;
mod table;
mod text;

pub use error::{CliError, ExitCode, report, run_main};
pub use format::{Format, UnknownFormat, print_json_line, print_structured, write_structured};
pub use nodes::{TUNNEL, labels_text, node_address, node_table};
pub use output::{OutputFile, unnamed_file};
pub use program::{answer_shell, parse, print_completion};
pub use progress::Progress;
pub use prompt::{PromptError, Prompter};
pub use raw::RawMode;
pub use table::Table;
pub use text::{printable, stdout_is_terminal, terminal_width};
