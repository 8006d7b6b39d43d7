//! Terminal modes as clients send them (RFC 4254 §8, RFC 8160), applied to a terminal.

use rustix::termios::{
    ControlModes, InputModes, LocalModes, OutputModes, SpecialCodeIndex as Index, Termios,
};

/// "Not there" in the client's words, and in the kernel's.
const NO_CHARACTER: u32 = 255;
const DISABLED: u8 = 0;

/// Sets what the terminal has of `modes`; the rest is passed over, as the RFC wants.
pub(super) fn apply(termios: &mut Termios, modes: &[(u8, u32)]) {
    for &(opcode, argument) in modes {
        if let Some(index) = character(opcode) {
            // Characters are single bytes; anything else is no character.
            termios.special_codes[index] = match argument {
                NO_CHARACTER => DISABLED,
                other => u8::try_from(other).unwrap_or(DISABLED),
            };
        } else {
            flag(termios, opcode, argument != 0);
            speed(termios, opcode, argument);
        }
    }
}

fn character(opcode: u8) -> Option<Index> {
    Some(match opcode {
        1 => Index::VINTR,
        2 => Index::VQUIT,
        3 => Index::VERASE,
        4 => Index::VKILL,
        5 => Index::VEOF,
        6 => Index::VEOL,
        7 => Index::VEOL2,
        8 => Index::VSTART,
        9 => Index::VSTOP,
        10 => Index::VSUSP,
        12 => Index::VREPRINT,
        13 => Index::VWERASE,
        14 => Index::VLNEXT,
        16 => Index::VSWTC,
        18 => Index::VDISCARD,
        _ => return None,
    })
}

fn flag(termios: &mut Termios, opcode: u8, on: bool) {
    let input = match opcode {
        30 => InputModes::IGNPAR,
        31 => InputModes::PARMRK,
        32 => InputModes::INPCK,
        33 => InputModes::ISTRIP,
        34 => InputModes::INLCR,
        35 => InputModes::IGNCR,
        36 => InputModes::ICRNL,
        37 => InputModes::IUCLC,
        38 => InputModes::IXON,
        39 => InputModes::IXANY,
        40 => InputModes::IXOFF,
        41 => InputModes::IMAXBEL,
        42 => InputModes::IUTF8,
        _ => InputModes::empty(),
    };
    let local = match opcode {
        50 => LocalModes::ISIG,
        51 => LocalModes::ICANON,
        52 => LocalModes::XCASE,
        53 => LocalModes::ECHO,
        54 => LocalModes::ECHOE,
        55 => LocalModes::ECHOK,
        56 => LocalModes::ECHONL,
        57 => LocalModes::NOFLSH,
        58 => LocalModes::TOSTOP,
        59 => LocalModes::IEXTEN,
        60 => LocalModes::ECHOCTL,
        61 => LocalModes::ECHOKE,
        62 => LocalModes::PENDIN,
        _ => LocalModes::empty(),
    };
    let output = match opcode {
        70 => OutputModes::OPOST,
        71 => OutputModes::OLCUC,
        72 => OutputModes::ONLCR,
        73 => OutputModes::OCRNL,
        74 => OutputModes::ONOCR,
        75 => OutputModes::ONLRET,
        _ => OutputModes::empty(),
    };
    let control = match opcode {
        90 => ControlModes::CS7,
        91 => ControlModes::CS8,
        92 => ControlModes::PARENB,
        93 => ControlModes::PARODD,
        _ => ControlModes::empty(),
    };
    termios.input_modes.set(input, on);
    termios.local_modes.set(local, on);
    termios.output_modes.set(output, on);
    // CS7 and CS8 share bits: "not 7 bits" must not take bits from 8.
    if on || !matches!(opcode, 90 | 91) {
        termios.control_modes.set(control, on);
    }
}

/// Opcodes 128 and 129; a speed of 0 would hang up.
fn speed(termios: &mut Termios, opcode: u8, speed: u32) {
    if speed == 0 {
        return;
    }
    // The kernel takes any speed for a pseudo terminal; one it does not take is no reason to refuse the session.
    let _ = match opcode {
        128 => termios.set_input_speed(speed),
        129 => termios.set_output_speed(speed),
        _ => Ok(()),
    };
}

#[cfg(test)]
mod tests {
    use rustix::pty::OpenptFlags;

    use super::*;

    fn termios() -> Termios {
        let master = rustix::pty::openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY).unwrap();
        rustix::termios::tcgetattr(&master).unwrap()
    }

    #[test]
    fn characters_flags_and_speeds() {
        let mut termios = termios();
        let modes = [
            (1, 7),
            (2, 255),
            (3, 70_000),
            (53, 0),
            (51, 1),
            (42, 1),
            (72, 0),
            (128, 9600),
            (129, 0),
            (99, 1),
            (0, 1),
        ];
        apply(&mut termios, &modes);
        assert_eq!(termios.special_codes[Index::VINTR], 7);
        assert_eq!(termios.special_codes[Index::VQUIT], DISABLED);
        assert_eq!(termios.special_codes[Index::VERASE], DISABLED);
        assert!(!termios.local_modes.contains(LocalModes::ECHO));
        assert!(termios.local_modes.contains(LocalModes::ICANON));
        assert!(termios.input_modes.contains(InputModes::IUTF8));
        assert!(!termios.output_modes.contains(OutputModes::ONLCR));
        assert_eq!(termios.input_speed(), 9600);
        assert_eq!(termios.output_speed(), 38400);
    }

    #[test]
    fn eight_bits_stay_eight() {
        let mut termios = termios();
        apply(&mut termios, &[(91, 1), (90, 0)]);
        assert!(termios.control_modes.contains(ControlModes::CS8));
    }

    proptest::proptest! {
        #[test]
        fn no_modes_hurt(modes: Vec<(u8, u32)>) {
            apply(&mut termios(), &modes);
        }
    }
}
