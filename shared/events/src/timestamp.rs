//! `google.protobuf.Timestamp` as the event schema uses it: an unset time is *written*, as the first
//! second of year 1, and printed as `0001-01-01T00:00:00Z`.

use std::fmt;

use chrono::{DateTime, SubsecRound as _, Utc};
use prost::DecodeError;
use prost::bytes::{Buf, BufMut};
use prost::encoding::{DecodeContext, WireType, int32, int64, skip_field};
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// Seconds of the unset time, 0001-01-01T00:00:00Z.
const UNSET_SECONDS: i64 = -62_135_596_800;
const UNSET_TEXT: &str = "0001-01-01T00:00:00Z";

/// A moment in UTC, or unset (the default).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp {
    seconds: i64,
    nanos: i32,
}

impl Timestamp {
    /// No time at all.
    pub const UNSET: Self = Self { seconds: UNSET_SECONDS, nanos: 0 };

    /// Whether no time was given.
    #[must_use]
    pub fn is_unset(&self) -> bool {
        self.seconds == UNSET_SECONDS && self.nanos == 0
    }

    /// The moment, unless unset or outside the range of dates.
    #[must_use]
    pub fn get(&self) -> Option<DateTime<Utc>> {
        if self.is_unset() {
            return None;
        }
        DateTime::from_timestamp(self.seconds, u32::try_from(self.nanos).ok()?)
    }

    /// The moment with milliseconds, as event times have it.
    #[must_use]
    pub fn rounded(time: DateTime<Utc>) -> Self {
        time.round_subsecs(3).into()
    }
}

impl Default for Timestamp {
    fn default() -> Self {
        Self::UNSET
    }
}

impl From<DateTime<Utc>> for Timestamp {
    fn from(time: DateTime<Utc>) -> Self {
        // Leap seconds are 1e9 and more in chrono; the wire has no place for them.
        let nanos = time.timestamp_subsec_nanos().min(999_999_999);
        Self { seconds: time.timestamp(), nanos: i32::try_from(nanos).unwrap_or(0) }
    }
}

impl From<Option<DateTime<Utc>>> for Timestamp {
    fn from(time: Option<DateTime<Utc>>) -> Self {
        time.map_or(Self::UNSET, Self::from)
    }
}

impl From<Timestamp> for Option<DateTime<Utc>> {
    fn from(time: Timestamp) -> Self {
        time.get()
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Some(time) = self.get() else { return f.write_str(UNSET_TEXT) };
        write!(f, "{}", time.format("%Y-%m-%dT%H:%M:%S"))?;
        if self.nanos != 0 {
            let digits = format!("{:09}", self.nanos);
            write!(f, ".{}", digits.trim_end_matches('0'))?;
        }
        f.write_str("Z")
    }
}

impl fmt::Debug for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl prost::Message for Timestamp {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        // Seconds are always written: absent ones would read as unset here, as 1970 elsewhere.
        int64::encode(1, &self.seconds, buf);
        if self.nanos != 0 {
            int32::encode(2, &self.nanos, buf);
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        match tag {
            1 => int64::merge(wire_type, &mut self.seconds, buf, ctx),
            2 => {
                if self.is_unset() {
                    self.seconds = 0;
                }
                int32::merge(wire_type, &mut self.nanos, buf, ctx)
            }
            _ => skip_field(wire_type, tag, buf, ctx),
        }
    }

    fn encoded_len(&self) -> usize {
        int64::encoded_len(1, &self.seconds)
            + if self.nanos == 0 { 0 } else { int32::encoded_len(2, &self.nanos) }
    }

    fn clear(&mut self) {
        *self = Self::UNSET;
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'de, str>::deserialize(deserializer)?;
        if text.is_empty() {
            return Ok(Self::UNSET);
        }
        let time = DateTime::parse_from_rfc3339(&text).map_err(de::Error::custom)?;
        Ok(time.with_timezone(&Utc).into())
    }
}

#[cfg(test)]
mod tests {
    use prost::Message as _;

    use super::*;

    fn at(text: &str) -> Timestamp {
        serde_json::from_value(serde_json::Value::String(text.into())).unwrap()
    }

    #[test]
    fn unset_is_written_as_year_one() {
        let bytes = Timestamp::UNSET.encode_to_vec();
        assert_eq!(bytes, [0x08, 0x80, 0x92, 0xb8, 0xc3, 0x98, 0xfe, 0xff, 0xff, 0xff, 0x01]);
        assert!(Timestamp::decode(&bytes[..]).unwrap().is_unset());
        assert!(at("0001-01-01T00:00:00Z").is_unset());
        assert_eq!(Timestamp::UNSET.to_string(), "0001-01-01T00:00:00Z");
    }

    #[test]
    fn fractions_lose_their_trailing_zeros() {
        for text in [
            "2025-03-04T09:21:07.93Z",
            "2025-03-04T09:15:22.479801234Z",
            "2025-03-04T09:21:07Z",
            "1970-01-01T00:00:00Z",
            "1969-12-31T23:59:59.5Z",
        ] {
            let time = at(text);
            assert_eq!(time.to_string(), text);
            assert_eq!(Timestamp::decode(&time.encode_to_vec()[..]).unwrap(), time);
        }
    }

    #[test]
    fn a_time_outside_all_calendars_prints_as_unset() {
        let mut bytes = Vec::new();
        int64::encode(1, &i64::MAX, &mut bytes);
        int32::encode(2, &-5, &mut bytes);
        assert_eq!(Timestamp::decode(&bytes[..]).unwrap().to_string(), "0001-01-01T00:00:00Z");
    }
}
