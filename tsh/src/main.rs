//! `tsh`, the user client. All logic is in the library, so that tests can reach it.

fn main() -> std::process::ExitCode {
    tsh::main()
}
