//! The declaration of a message, and everything that follows from it.
//!
//! A field reads `number name: kind rule "json key",`. The rule is `=` for a key that is always
//! there, `?` for one that is left out when empty, `#` for bytes, in base64 and left out when empty, `~` for
//! a part whose keys are set into the object around it, `-` for a field that is not in JSON. Kinds:
//!
//! | kind | Rust | protobuf |
//! |---|---|---|
//! | `string` `int32` `uint32` `int64` `uint64` `bool` | itself | itself |
//! | `strings` | `Vec<String>` | repeated string |
//! | `maybe_uint32` `maybe_uint64` | `Option<u32>`, `Option<u64>` | UInt32Value, UInt64Value |
//! | `bytes` | `Bytes` | bytes |
//! | `time` | `Timestamp` | Timestamp, always written |
//! | `labels` | `BTreeMap<String, String>` | map |
//! | `traits` | `LabelValues` | LabelValues |
//! | `object` | `Option<Struct>` | Struct |
//! | `part(T)` | `T` | message, always written |
//! | `maybe(T)` | `Option<T>` | message |
//! | `many(T)` | `Vec<T>` | repeated message |

macro_rules! messages {
    ($($(#[$meta:meta])* $name:ident { $($body:tt)* })*) => {
        $( messages! { @munch [$(#[$meta])*] $name [] $($body)* } )*
    };

    (@munch $meta:tt $name:ident [$($done:tt)*] $tag:tt $f:ident: string $how:tt $key:tt, $($rest:tt)*) => {
        messages! { @munch $meta $name [$($done)* { $tag $f [string] [String] $how $key }] $($rest)* }
    };
    (@munch $meta:tt $name:ident [$($done:tt)*] $tag:tt $f:ident: strings $how:tt $key:tt, $($rest:tt)*) => {
        messages! { @munch $meta $name [$($done)* { $tag $f [string, repeated] [Vec<String>] $how $key }] $($rest)* }
    };
    (@munch $meta:tt $name:ident [$($done:tt)*] $tag:tt $f:ident: bool $how:tt $key:tt, $($rest:tt)*) => {
        messages! { @munch $meta $name [$($done)* { $tag $f [bool] [bool] $how $key }] $($rest)* }
    };
    (@munch $meta:tt $name:ident [$($done:tt)*] $tag:tt $f:ident: int32 $how:tt $key:tt, $($rest:tt)*) => {
        messages! { @munch $meta $name [$($done)* { $tag $f [int32] [i32] $how $key }] $($rest)* }
    };
    (@munch $meta:tt $name:ident [$($done:tt)*] $tag:tt $f:ident: uint32 $how:tt $key:tt, $($rest:tt)*) => {
        messages! { @munch $meta $name [$($done)* { $tag $f [uint32] [u32] $how $key }] $($rest)* }
    };
    (@munch $meta:tt $name:ident [$($done:tt)*] $tag:tt $f:ident: int64 $how:tt $key:tt, $($rest:tt)*) => {
        messages! { @munch $meta $name [$($done)* { $tag $f [int64] [i64] $how $key }] $($rest)* }
    };
    (@munch $meta:tt $name:ident [$($done:tt)*] $tag:tt $f:ident: uint64 $how:tt $key:tt, $($rest:tt)*) => {
        messages! { @munch $meta $name [$($done)* { $tag $f [uint64] [u64] $how $key }] $($rest)* }
    };
    (@munch $meta:tt $name:ident [$($done:tt)*] $tag:tt $f:ident: maybe_uint32 $how:tt $key:tt, $($rest:tt)*) => {
        messages! { @munch $meta $name [$($done)* { $tag $f [message, optional] [Option<u32>] $how $key }] $($rest)* }
    };
    (@munch $meta:tt $name:ident [$($done:tt)*] $tag:tt $f:ident: maybe_uint64 $how:tt $key:tt, $($rest:tt)*) => {
        messages! { @munch $meta $name [$($done)* { $tag $f [message, optional] [Option<u64>] $how $key }] $($rest)* }
    };
    (@munch $meta:tt $name:ident [$($done:tt)*] $tag:tt $f:ident: bytes $how:tt $key:tt, $($rest:tt)*) => {
        messages! { @munch $meta $name [$($done)* { $tag $f [bytes = "bytes"] [prost::bytes::Bytes] $how $key }] $($rest)* }
    };
    (@munch $meta:tt $name:ident [$($done:tt)*] $tag:tt $f:ident: time $how:tt $key:tt, $($rest:tt)*) => {
        messages! { @munch $meta $name [$($done)* { $tag $f [message, required] [crate::Timestamp] $how $key }] $($rest)* }
    };
    (@munch $meta:tt $name:ident [$($done:tt)*] $tag:tt $f:ident: labels $how:tt $key:tt, $($rest:tt)*) => {
        messages! { @munch $meta $name [$($done)* { $tag $f [btree_map = "string, string"] [std::collections::BTreeMap<String, String>] $how $key }] $($rest)* }
    };
    (@munch $meta:tt $name:ident [$($done:tt)*] $tag:tt $f:ident: traits $how:tt $key:tt, $($rest:tt)*) => {
        messages! { @munch $meta $name [$($done)* { $tag $f [message, required] [crate::LabelValues] $how $key }] $($rest)* }
    };
    (@munch $meta:tt $name:ident [$($done:tt)*] $tag:tt $f:ident: object $how:tt $key:tt, $($rest:tt)*) => {
        messages! { @munch $meta $name [$($done)* { $tag $f [message, optional] [Option<crate::Struct>] $how $key }] $($rest)* }
    };
    (@munch $meta:tt $name:ident [$($done:tt)*] $tag:tt $f:ident: part($type:ident) $how:tt $key:tt, $($rest:tt)*) => {
        messages! { @munch $meta $name [$($done)* { $tag $f [message, required] [$type] $how $key }] $($rest)* }
    };
    (@munch $meta:tt $name:ident [$($done:tt)*] $tag:tt $f:ident: maybe($type:ident) $how:tt $key:tt, $($rest:tt)*) => {
        messages! { @munch $meta $name [$($done)* { $tag $f [message, optional] [Option<$type>] $how $key }] $($rest)* }
    };
    (@munch $meta:tt $name:ident [$($done:tt)*] $tag:tt $f:ident: many($type:ident) $how:tt $key:tt, $($rest:tt)*) => {
        messages! { @munch $meta $name [$($done)* { $tag $f [message, repeated] [Vec<$type>] $how $key }] $($rest)* }
    };

    (@munch [$($meta:tt)*] $name:ident [$({ $tag:tt $f:ident [$($wire:tt)*] [$($type:tt)*] $how:tt $key:tt })*]) => {
        $($meta)*
        #[derive(Clone, PartialEq, prost::Message)]
        pub struct $name {
            $(
                #[doc = messages!(@doc $how $key)]
                #[prost($($wire)*, tag = $tag)]
                pub $f: $($type)*,
            )*
        }

        impl crate::value::Message for $name {
            fn write<M: serde::ser::SerializeMap>(&self, map: &mut M) -> Result<(), M::Error> {
                $( messages!(@write $how $key map self.$f); )*
                Ok(())
            }

            fn read(&mut self, object: &mut crate::value::Object) -> Result<(), crate::value::FieldError> {
                $( messages!(@read $how $key object self.$f); )*
                Ok(())
            }

            fn columns(path: &mut Vec<&'static str>, out: &mut Vec<crate::columns::Column>) {
                $( messages!(@columns $how $key path out [$($type)*]); )*
            }

            fn shorten(&mut self, max: usize) {
                $( messages!(@shorten $how max self.$f); )*
            }

            fn part<T: 'static>(&self) -> Option<&T> {
                $( messages!(@part T $how self.$f); )*
                None
            }
        }

        impl crate::value::Value for $name {
            fn is_empty(&self) -> bool {
                false
            }
            fn columns(path: &mut Vec<&'static str>, out: &mut Vec<crate::columns::Column>) {
                <Self as crate::value::Message>::columns(path, out);
            }
            fn shorten(&mut self, max: usize) {
                crate::value::Message::shorten(self, max);
            }
        }

        impl crate::value::Value for Option<$name> {
            fn is_empty(&self) -> bool {
                self.is_none()
            }
            fn columns(path: &mut Vec<&'static str>, out: &mut Vec<crate::columns::Column>) {
                <$name as crate::value::Message>::columns(path, out);
            }
            fn shorten(&mut self, max: usize) {
                if let Some(inner) = self {
                    crate::value::Message::shorten(inner, max);
                }
            }
        }

        impl crate::value::Value for Vec<$name> {
            fn is_empty(&self) -> bool {
                self.as_slice().is_empty()
            }
            fn columns(path: &mut Vec<&'static str>, out: &mut Vec<crate::columns::Column>) {
                let mut fields = Vec::new();
                <$name as crate::value::Message>::columns(&mut Vec::new(), &mut fields);
                out.push(crate::columns::Column::rows(path, fields));
            }
            fn shorten(&mut self, max: usize) {
                let each = max / self.len().max(1);
                for inner in self.iter_mut() {
                    crate::value::Message::shorten(inner, each);
                }
                while !self.as_slice().is_empty()
                    && self.iter().map(|inner| prost::Message::encoded_len(inner) + 4).sum::<usize>() > max
                {
                    self.truncate(self.len() / 2);
                }
            }
        }

        impl serde::Serialize for $name {
            fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                let mut map = serializer.serialize_map(None)?;
                crate::value::Message::write(self, &mut map)?;
                serde::ser::SerializeMap::end(map)
            }
        }

        impl<'de> serde::Deserialize<'de> for $name {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let mut object = crate::value::Object::deserialize(deserializer)?;
                let mut message = Self::default();
                crate::value::Message::read(&mut message, &mut object)
                    .map_err(|error| crate::event::describe::<D::Error>(&error))?;
                Ok(message)
            }
        }
    };

    (@doc ~ $key:tt) => { "Part of every event of its kind; its keys stand in the event itself." };
    (@doc - $key:tt) => { "Not in JSON." };
    (@doc $how:tt $key:tt) => { concat!("`", $key, "`") };

    (@write = $key:tt $map:ident $self:ident.$f:ident) => { crate::value::write($map, $key, &$self.$f, false)?; };
    (@write ? $key:tt $map:ident $self:ident.$f:ident) => { crate::value::write($map, $key, &$self.$f, true)?; };
    (@write ~ $key:tt $map:ident $self:ident.$f:ident) => { crate::value::Message::write(&$self.$f, $map)?; };
    (@write # $key:tt $map:ident $self:ident.$f:ident) => { crate::value::write_bytes($map, $key, &$self.$f)?; };
    (@write - $key:tt $map:ident $self:ident.$f:ident) => {};

    (@read ~ $key:tt $object:ident $self:ident.$f:ident) => { crate::value::Message::read(&mut $self.$f, $object)?; };
    (@read # $key:tt $object:ident $self:ident.$f:ident) => { crate::value::read_bytes($object, $key, &mut $self.$f)?; };
    (@read - $key:tt $object:ident $self:ident.$f:ident) => {};
    (@read $how:tt $key:tt $object:ident $self:ident.$f:ident) => { crate::value::read($object, $key, &mut $self.$f)?; };

    (@columns ~ $key:tt $path:ident $out:ident [$($type:tt)*]) => { <$($type)* as crate::value::Message>::columns($path, $out); };
    (@columns # $key:tt $path:ident $out:ident [$($type:tt)*]) => {
        crate::value::below($path, $key, $out, <String as crate::value::Value>::columns);
    };
    (@columns - $key:tt $path:ident $out:ident [$($type:tt)*]) => {};
    (@columns $how:tt $key:tt $path:ident $out:ident [$($type:tt)*]) => {
        crate::value::below($path, $key, $out, <$($type)* as crate::value::Value>::columns);
    };

    (@part $wanted:ident ~ $self:ident.$f:ident) => {
        if let Some(part) = (&$self.$f as &dyn std::any::Any).downcast_ref::<$wanted>() {
            return Some(part);
        }
    };
    (@part $wanted:ident $how:tt $self:ident.$f:ident) => {};

    (@shorten # $max:ident $self:ident.$f:ident) => { $self.$f.truncate($max); };
    (@shorten - $max:ident $self:ident.$f:ident) => {};
    (@shorten $how:tt $max:ident $self:ident.$f:ident) => { crate::value::Value::shorten(&mut $self.$f, $max); };
}
pub(crate) use messages;
