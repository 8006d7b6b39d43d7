//! The local terminal: size, modes.

use rustix::termios::{
    ControlModes, InputModes, LocalModes, OutputModes, SpecialCodeIndex, Termios, tcgetattr,
    tcgetwinsize,
};
use shared_ssh::client::WindowSize;
use shared_ssh::russh::{Pty, Sig};

/// The terminal's size; 80 × 24 where there is none.
pub(super) fn size() -> WindowSize {
    let size = tcgetwinsize(rustix::stdio::stdin())
        .or_else(|_| tcgetwinsize(rustix::stdio::stdout()))
        .ok()
        .filter(|size| size.ws_col > 0 && size.ws_row > 0);
    match size {
        Some(size) => WindowSize {
            columns: size.ws_col.into(),
            rows: size.ws_row.into(),
            width: size.ws_xpixel.into(),
            height: size.ws_ypixel.into(),
        },
        None => WindowSize { columns: 80, rows: 24, width: 0, height: 0 },
    }
}

/// The terminal's modes as the server is told them (RFC 4254 §8); none where there is no terminal.
pub(super) fn modes() -> Vec<(Pty, u32)> {
    match tcgetattr(rustix::stdio::stdin()) {
        Ok(termios) => encode(&termios),
        Err(_) => Vec::new(),
    }
}

fn encode(termios: &Termios) -> Vec<(Pty, u32)> {
    let codes = [
        (Pty::VINTR, SpecialCodeIndex::VINTR),
        (Pty::VQUIT, SpecialCodeIndex::VQUIT),
        (Pty::VERASE, SpecialCodeIndex::VERASE),
        (Pty::VKILL, SpecialCodeIndex::VKILL),
        (Pty::VEOF, SpecialCodeIndex::VEOF),
        (Pty::VEOL, SpecialCodeIndex::VEOL),
        (Pty::VEOL2, SpecialCodeIndex::VEOL2),
        (Pty::VSTART, SpecialCodeIndex::VSTART),
        (Pty::VSTOP, SpecialCodeIndex::VSTOP),
        (Pty::VSUSP, SpecialCodeIndex::VSUSP),
        (Pty::VREPRINT, SpecialCodeIndex::VREPRINT),
        (Pty::VWERASE, SpecialCodeIndex::VWERASE),
        (Pty::VLNEXT, SpecialCodeIndex::VLNEXT),
        (Pty::VDISCARD, SpecialCodeIndex::VDISCARD),
    ];
    let input = [
        (Pty::IGNPAR, InputModes::IGNPAR),
        (Pty::PARMRK, InputModes::PARMRK),
        (Pty::INPCK, InputModes::INPCK),
        (Pty::ISTRIP, InputModes::ISTRIP),
        (Pty::INLCR, InputModes::INLCR),
        (Pty::IGNCR, InputModes::IGNCR),
        (Pty::ICRNL, InputModes::ICRNL),
        (Pty::IXON, InputModes::IXON),
        (Pty::IXANY, InputModes::IXANY),
        (Pty::IXOFF, InputModes::IXOFF),
        (Pty::IMAXBEL, InputModes::IMAXBEL),
        (Pty::IUTF8, InputModes::IUTF8),
    ];
    let local = [
        (Pty::ISIG, LocalModes::ISIG),
        (Pty::ICANON, LocalModes::ICANON),
        (Pty::ECHO, LocalModes::ECHO),
        (Pty::ECHOE, LocalModes::ECHOE),
        (Pty::ECHOK, LocalModes::ECHOK),
        (Pty::ECHONL, LocalModes::ECHONL),
        (Pty::NOFLSH, LocalModes::NOFLSH),
        (Pty::TOSTOP, LocalModes::TOSTOP),
        (Pty::IEXTEN, LocalModes::IEXTEN),
        (Pty::ECHOCTL, LocalModes::ECHOCTL),
        (Pty::ECHOKE, LocalModes::ECHOKE),
        (Pty::PENDIN, LocalModes::PENDIN),
    ];
    let output = [
        (Pty::OPOST, OutputModes::OPOST),
        (Pty::ONLCR, OutputModes::ONLCR),
        (Pty::OCRNL, OutputModes::OCRNL),
        (Pty::ONOCR, OutputModes::ONOCR),
        (Pty::ONLRET, OutputModes::ONLRET),
    ];
    let control = [
        (Pty::CS7, ControlModes::CS7),
        (Pty::CS8, ControlModes::CS8),
        (Pty::PARENB, ControlModes::PARENB),
        (Pty::PARODD, ControlModes::PARODD),
    ];
    let flag = |on: bool| u32::from(on);
    let mut modes: Vec<(Pty, u32)> = Vec::new();
    modes.extend(codes.map(|(mode, code)| (mode, termios.special_codes[code].into())));
    modes.extend(input.map(|(mode, bit)| (mode, flag(termios.input_modes.contains(bit)))));
    modes.extend(local.map(|(mode, bit)| (mode, flag(termios.local_modes.contains(bit)))));
    modes.extend(output.map(|(mode, bit)| (mode, flag(termios.output_modes.contains(bit)))));
    modes.extend(control.map(|(mode, bit)| (mode, flag(termios.control_modes.contains(bit)))));
    modes.push((Pty::TTY_OP_ISPEED, termios.input_speed()));
    modes.push((Pty::TTY_OP_OSPEED, termios.output_speed()));
    modes
}

/// The signal of that number, as the protocol names it.
pub(super) fn signal(number: u8) -> Sig {
    match number {
        1 => Sig::HUP,
        2 => Sig::INT,
        _ => Sig::TERM,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_of_a_terminal_are_told_each_once() {
        let pty = rustix::pty::openpt(rustix::pty::OpenptFlags::RDWR).unwrap();
        rustix::pty::grantpt(&pty).unwrap();
        rustix::pty::unlockpt(&pty).unwrap();
        let modes = encode(&tcgetattr(&pty).unwrap());
        let value = |mode: Pty| {
            modes.iter().filter(|(m, _)| *m == mode).map(|(_, v)| *v).collect::<Vec<_>>()
        };
        // A fresh Linux terminal: ^C interrupts, echo is on, eight bits.
        assert_eq!(value(Pty::VINTR), [3]);
        assert_eq!(value(Pty::ECHO), [1]);
        assert_eq!(value(Pty::CS8), [1]);
        assert_eq!(value(Pty::PARENB), [0]);
    }
}
