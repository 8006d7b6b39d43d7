//! What a client sends behind the start-up, as far as the audit log tells of it.

use super::body::Body;
use super::frames::{Cut, Message};

/// A statement as it was sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Text<'a> {
    /// Its bytes in the client's encoding; the first of them where `cut` is set.
    pub bytes: &'a [u8],
    /// Set when there is more than was kept.
    pub cut: Option<Cut>,
}

/// `Bind`: values for a prepared statement.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bind<'a> {
    /// The name of the portal it makes.
    pub portal: &'a [u8],
    /// The name of the prepared statement.
    pub statement: &'a [u8],
    /// The values.
    pub parameters: Parameters<'a>,
    /// Set when the message was longer than what is kept; the last values are missing then.
    pub cut: Option<Cut>,
}

/// `FunctionCall`: a function called by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FunctionCall<'a> {
    /// The function.
    pub oid: u32,
    /// Its arguments.
    pub arguments: Parameters<'a>,
    /// As in [`Bind`].
    pub cut: Option<Cut>,
}

/// A value of a parameter or an argument.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parameter<'a> {
    /// No value.
    Null,
    /// In the type's text form.
    Text(&'a [u8]),
    /// In the type's binary form.
    Binary(&'a [u8]),
    /// In a form that the protocol does not know.
    Unknown,
    /// A value that is not kept to its end: what is there, and the length of all of it.
    Part(&'a [u8], usize),
}

/// Values with their forms.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Parameters<'a> {
    formats: &'a [u8],
    count: u16,
    values: &'a [u8],
}

impl<'a> Parameters<'a> {
    /// How many the message says there are.
    #[must_use]
    pub fn count(&self) -> usize {
        usize::from(self.count)
    }

    /// Those that were kept. Behind a [`Parameter::Part`] comes nothing.
    pub fn iter(&self) -> impl Iterator<Item = Parameter<'a>> {
        let (formats, mut left) = (self.formats, Body(self.values));
        let mut over = false;
        (0..self.count()).map_while(move |at| {
            if over {
                return None;
            }
            let length = left.i32()?;
            let Ok(length) = usize::try_from(length) else { return Some(Parameter::Null) };
            let Some(value) = left.bytes(length) else {
                over = true;
                return Some(Parameter::Part(left.0, length));
            };
            Some(match format(formats, at) {
                0 => Parameter::Text(value),
                1 => Parameter::Binary(value),
                _ => Parameter::Unknown,
            })
        })
    }

    /// `count` of formats, formats, count of values, values; and what follows them.
    fn read(body: &mut Body<'a>, whole: bool) -> Option<Self> {
        let formats = usize::from(body.u16()?);
        let formats = body.bytes(formats * 2)?;
        let count = body.u16()?;
        let named = formats.len() / 2;
        if named > 1 && named != usize::from(count) {
            return None;
        }
        let values = body.0;
        if whole {
            for _ in 0..count {
                let length = body.i32()?;
                if length < -1 {
                    return None;
                }
                body.bytes(usize::try_from(length).unwrap_or_default())?;
            }
        } else {
            body.bytes(body.0.len())?;
        }
        let values = values.get(..values.len() - body.0.len())?;
        Some(Self { formats, count, values })
    }
}

/// No format means text, one is for all, otherwise each has its own.
fn format(formats: &[u8], at: usize) -> u16 {
    let at = if formats.len() == 2 { 0 } else { at * 2 };
    formats.get(at..at + 2).and_then(|pair| pair.try_into().ok()).map_or(0, u16::from_be_bytes)
}

/// A message of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frontend<'a> {
    /// `Query`: statements as text.
    Query(Text<'a>),
    /// `Parse`: a statement to prepare.
    Parse {
        /// What it is called from now on.
        name: &'a [u8],
        /// The statement.
        text: Text<'a>,
    },
    /// `Bind`.
    Bind(Bind<'a>),
    /// `Execute` of a portal.
    Execute {
        /// The portal's name.
        portal: &'a [u8],
    },
    /// `Close` of a prepared statement.
    CloseStatement(&'a [u8]),
    /// `Close` of a portal.
    ClosePortal(&'a [u8]),
    /// `FunctionCall`.
    FunctionCall(FunctionCall<'a>),
    /// `Terminate`: the client goes.
    Terminate,
    /// Nothing that is told of.
    Other,
}

/// Reads a message of a client; none when it is malformed.
#[must_use]
pub fn frontend<'a>(message: &Message<'a>) -> Option<Frontend<'a>> {
    let mut body = Body(message.body);
    let whole = message.cut.is_none();
    let read = match message.tag {
        b'Q' => Frontend::Query(text(&mut body, message.cut)?),
        b'P' => {
            let name = body.string()?;
            let text = text(&mut body, message.cut)?;
            if whole {
                let types = usize::from(body.u16()?);
                body.bytes(types * 4)?;
            }
            Frontend::Parse { name, text }
        }
        b'B' => {
            let (portal, statement) = (body.string()?, body.string()?);
            let parameters = Parameters::read(&mut body, whole)?;
            if whole {
                let results = usize::from(body.u16()?);
                body.bytes(results * 2)?;
            }
            Frontend::Bind(Bind { portal, statement, parameters, cut: message.cut })
        }
        b'E' => {
            let portal = body.string()?;
            body.i32()?;
            Frontend::Execute { portal }
        }
        b'C' => match (body.byte()?, body.string()?) {
            (b'S', name) => Frontend::CloseStatement(name),
            (b'P', name) => Frontend::ClosePortal(name),
            _ => return None,
        },
        b'F' => {
            let oid = body.u32()?;
            let arguments = Parameters::read(&mut body, whole)?;
            if whole {
                body.u16()?;
            }
            Frontend::FunctionCall(FunctionCall { oid, arguments, cut: message.cut })
        }
        b'X' => Frontend::Terminate,
        _ => return Some(Frontend::Other),
    };
    (!whole || body.is_empty()).then_some(read)
}

/// A string that may be cut, in which case its end is not there.
fn text<'a>(body: &mut Body<'a>, cut: Option<Cut>) -> Option<Text<'a>> {
    match (body.string(), cut) {
        (Some(bytes), None) => Some(Text { bytes, cut }),
        // What was cut off lay behind the statement: types of parameters.
        (Some(bytes), Some(whole)) if whole.length == bytes.len() as u64 => {
            Some(Text { bytes, cut: None })
        }
        (None, Some(_)) => Some(Text { bytes: body.0, cut }),
        _ => None,
    }
}

#[cfg(test)]
mod tests;
