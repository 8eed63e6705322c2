//! Names, numbers and kinds of the fields of `solver/pb/ops.proto`.
//!
//! The messages of [`wire`](super::wire) skip what they do not know, as protobuf has it. These tables tell what
//! was skipped: [`Message::check`] refuses bytes with fields that nobody here reads, by name where they have
//! one. They are also what [`json`](super::json) prints.
//!
//! Invariants:
//! - Every field of `wire` is in its table, with the same number (the tests encode them all).
//! - Reading goes no deeper than the tables do: nothing in them holds itself.

use super::DecodeError;

/// A message of the wire form.
#[derive(Debug)]
pub(super) struct Message {
    name: &'static str,
    pub(super) fields: &'static [Field],
}

/// A field of a message.
#[derive(Debug)]
pub(super) struct Field {
    number: u32,
    /// Name in `ops.proto`, which is also that in JSON.
    pub(super) name: &'static str,
    pub(super) kind: Kind,
    /// Whether there may be several values.
    pub(super) is_list: bool,
    /// Whether it is shown when it is absent, which is how zero is written: indexes, of which 0 is one.
    pub(super) shows_zero: bool,
    /// Name of the choice that it is one alternative of.
    pub(super) choice: Option<&'static str>,
}

/// What the values of a field are.
#[derive(Debug, Clone, Copy)]
pub(super) enum Kind {
    /// A whole number of 64 bits, or an enumeration.
    Number,
    /// `true` or `false`.
    Bool,
    /// UTF-8.
    Text,
    /// Bytes.
    Bytes,
    /// Another message.
    Message(&'static Message),
    /// A map by text: messages of a key (1) and such a value (2).
    Map(&'static Kind),
    /// Known, and read over: it says nothing of what is built.
    Ignored,
    /// Known, and nothing this builder can do.
    Unsupported,
}

const fn one(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { number, name, kind, is_list: false, shows_zero: false, choice: None }
}

const fn choice(choice: &'static str, field: Field) -> Field {
    Field { choice: Some(choice), ..field }
}

const fn many(number: u32, name: &'static str, kind: Kind) -> Field {
    Field { is_list: true, ..one(number, name, kind) }
}

const fn index(number: u32, name: &'static str) -> Field {
    Field { shows_zero: true, ..one(number, name, Number) }
}

use Kind::{Bool, Bytes, Ignored, Map, Number, Text, Unsupported};

const fn message(message: &'static Message) -> Kind {
    Kind::Message(message)
}

/// `pb.Op`
pub(super) static OP: Message = Message {
    name: "op",
    fields: &[
        many(1, "inputs", message(&INPUT)),
        choice("Op", one(2, "exec", message(&EXEC))),
        choice("Op", one(3, "source", message(&SOURCE_OP))),
        choice("Op", one(4, "file", message(&FILE))),
        choice("Op", one(5, "build", Unsupported)),
        choice("Op", one(6, "merge", message(&MERGE))),
        choice("Op", one(7, "diff", message(&DIFF))),
        one(10, "platform", message(&PLATFORM)),
        one(11, "constraints", message(&CONSTRAINTS)),
        one(12, "identity", Unsupported),
    ],
};

static INPUT: Message =
    Message { name: "op.inputs", fields: &[one(1, "digest", Text), index(2, "index")] };

static PLATFORM: Message = Message {
    name: "op.platform",
    fields: &[
        one(1, "Architecture", Text),
        one(2, "OS", Text),
        one(3, "Variant", Text),
        one(4, "OSVersion", Text),
        many(5, "OSFeatures", Text),
    ],
};

static CONSTRAINTS: Message =
    Message { name: "op.constraints", fields: &[many(1, "filter", Text)] };

static EXEC: Message = Message {
    name: "exec",
    fields: &[
        one(1, "meta", message(&META)),
        many(2, "mounts", message(&MOUNT)),
        one(3, "network", Number),
        one(4, "security", Number),
        many(5, "secretenv", message(&SECRET_ENV)),
        many(6, "cdiDevices", message(&CDI_DEVICE)),
    ],
};

static META: Message = Message {
    name: "exec.meta",
    fields: &[
        many(1, "args", Text),
        many(2, "env", Text),
        one(3, "cwd", Text),
        one(4, "user", Text),
        one(5, "proxy_env", message(&PROXY_ENV)),
        many(6, "extraHosts", message(&HOST_IP)),
        one(7, "hostname", Text),
        many(9, "ulimit", message(&ULIMIT)),
        one(10, "cgroupParent", Text),
        one(11, "removeMountStubsRecursive", Bool),
        many(12, "validExitCodes", Number),
    ],
};

static PROXY_ENV: Message = Message {
    name: "exec.meta.proxy_env",
    fields: &[
        one(1, "http_proxy", Text),
        one(2, "https_proxy", Text),
        one(3, "ftp_proxy", Text),
        one(4, "no_proxy", Text),
        one(5, "all_proxy", Text),
    ],
};

static HOST_IP: Message =
    Message { name: "exec.meta.extraHosts", fields: &[one(1, "Host", Text), one(2, "IP", Text)] };

static ULIMIT: Message = Message {
    name: "exec.meta.ulimit",
    fields: &[one(1, "Name", Text), one(2, "Soft", Number), one(3, "Hard", Number)],
};

static SECRET_ENV: Message = Message {
    name: "exec.secretenv",
    fields: &[one(1, "ID", Text), one(2, "name", Text), one(3, "optional", Bool)],
};

static CDI_DEVICE: Message =
    Message { name: "exec.cdiDevices", fields: &[one(1, "name", Text), one(2, "optional", Bool)] };

static MOUNT: Message = Message {
    name: "mount",
    fields: &[
        index(1, "input"),
        one(2, "selector", Text),
        one(3, "dest", Text),
        index(4, "output"),
        one(5, "readonly", Bool),
        one(6, "mountType", Number),
        one(19, "TmpfsOpt", message(&TMPFS)),
        one(20, "cacheOpt", message(&CACHE)),
        one(21, "secretOpt", message(&CREDENTIAL)),
        one(22, "SSHOpt", message(&CREDENTIAL)),
        one(23, "resultID", Unsupported),
        one(24, "contentCache", Number),
    ],
};

static TMPFS: Message = Message { name: "mount.TmpfsOpt", fields: &[one(1, "size", Number)] };

static CACHE: Message =
    Message { name: "mount.cacheOpt", fields: &[one(1, "ID", Text), one(2, "sharing", Number)] };

/// `SecretOpt` and `SSHOpt`, which have the same fields.
static CREDENTIAL: Message = Message {
    name: "mount.secretOpt",
    fields: &[
        one(1, "ID", Text),
        one(2, "uid", Number),
        one(3, "gid", Number),
        one(4, "mode", Number),
        one(5, "optional", Bool),
    ],
};

static SOURCE_OP: Message =
    Message { name: "source", fields: &[one(1, "identifier", Text), many(2, "attrs", Map(&Text))] };

static MERGE: Message =
    Message { name: "merge", fields: &[many(1, "inputs", message(&PICKED_INPUT))] };

static DIFF: Message = Message {
    name: "diff",
    fields: &[one(1, "lower", message(&PICKED_INPUT)), one(2, "upper", message(&PICKED_INPUT))],
};

static PICKED_INPUT: Message = Message { name: "inputs", fields: &[index(1, "input")] };

static FILE: Message = Message { name: "file", fields: &[many(2, "actions", message(&ACTION))] };

static ACTION: Message = Message {
    name: "file.actions",
    fields: &[
        index(1, "input"),
        index(2, "secondaryInput"),
        index(3, "output"),
        choice("Action", one(4, "copy", message(&COPY))),
        choice("Action", one(5, "mkfile", message(&MKFILE))),
        choice("Action", one(6, "mkdir", message(&MKDIR))),
        choice("Action", one(7, "rm", message(&RM))),
        choice("Action", one(8, "symlink", message(&SYMLINK))),
    ],
};

static COPY: Message = Message {
    name: "copy",
    fields: &[
        one(1, "src", Text),
        one(2, "dest", Text),
        one(3, "owner", message(&CHOWN)),
        one(4, "mode", Number),
        one(5, "followSymlink", Bool),
        one(6, "dirCopyContents", Bool),
        one(7, "attemptUnpackDockerCompatibility", Bool),
        one(8, "createDestPath", Bool),
        one(9, "allowWildcard", Bool),
        one(10, "allowEmptyWildcard", Bool),
        one(11, "timestamp", Number),
        many(12, "include_patterns", Text),
        many(13, "exclude_patterns", Text),
        one(14, "alwaysReplaceExistingDestPaths", Bool),
        one(15, "modeStr", Text),
        many(16, "required_paths", Text),
    ],
};

static MKFILE: Message = Message {
    name: "mkfile",
    fields: &[
        one(1, "path", Text),
        one(2, "mode", Number),
        one(3, "data", Bytes),
        one(4, "owner", message(&CHOWN)),
        one(5, "timestamp", Number),
    ],
};

static MKDIR: Message = Message {
    name: "mkdir",
    fields: &[
        one(1, "path", Text),
        one(2, "mode", Number),
        one(3, "makeParents", Bool),
        one(4, "owner", message(&CHOWN)),
        one(5, "timestamp", Number),
    ],
};

static RM: Message = Message {
    name: "rm",
    fields: &[one(1, "path", Text), one(2, "allowNotFound", Bool), one(3, "allowWildcard", Bool)],
};

static SYMLINK: Message = Message {
    name: "symlink",
    fields: &[
        one(1, "oldpath", Text),
        one(2, "newpath", Text),
        one(3, "owner", message(&CHOWN)),
        one(4, "timestamp", Number),
    ],
};

static CHOWN: Message = Message {
    name: "owner",
    fields: &[one(1, "user", message(&USER)), one(2, "group", message(&USER))],
};

static USER: Message = Message {
    name: "owner.user",
    fields: &[
        choice("User", one(1, "byName", message(&NAMED_USER))),
        choice("User", one(2, "byId", Number)),
    ],
};

static NAMED_USER: Message =
    Message { name: "owner.user.byName", fields: &[one(1, "name", Text), index(2, "input")] };

/// `pb.Definition`
pub(super) static DEFINITION: Message = Message {
    name: "definition",
    fields: &[
        // Each is an `OP` of its own.
        many(1, "def", Bytes),
        many(2, "metadata", Map(&message(&METADATA))),
        one(3, "Source", message(&SOURCE)),
    ],
};

/// `pb.OpMetadata`
pub(super) static METADATA: Message = Message {
    name: "metadata",
    fields: &[
        one(1, "ignore_cache", Bool),
        many(2, "description", Map(&Text)),
        one(4, "export_cache", Unsupported),
        // What an op needs shows in its fields, and all of those are checked.
        many(5, "caps", Ignored),
        // How steps are put together when they are shown.
        one(6, "progress_group", Ignored),
    ],
};

static SOURCE: Message = Message {
    name: "source map",
    fields: &[
        many(1, "locations", Map(&message(&LOCATIONS))),
        many(2, "infos", message(&SOURCE_INFO)),
    ],
};

/// `pb.Locations`
pub(super) static LOCATIONS: Message =
    Message { name: "locations", fields: &[many(1, "locations", message(&LOCATION))] };

static LOCATION: Message = Message {
    name: "location",
    fields: &[index(1, "sourceIndex"), many(2, "ranges", message(&RANGE))],
};

static RANGE: Message = Message {
    name: "range",
    fields: &[one(1, "start", message(&POSITION)), one(2, "end", message(&POSITION))],
};

static POSITION: Message =
    Message { name: "position", fields: &[one(1, "line", Number), one(2, "character", Number)] };

static SOURCE_INFO: Message = Message {
    name: "source map info",
    fields: &[
        one(1, "filename", Text),
        one(2, "data", Bytes),
        // How the file itself was made.
        one(3, "definition", Ignored),
        one(4, "language", Text),
    ],
};

/// A value as it stands in a message.
#[derive(Debug, Clone, Copy)]
pub(super) enum Value<'b> {
    /// A number or a truth value.
    Number(u64),
    /// Text, bytes, a message, or numbers one behind the other.
    Bytes(&'b [u8]),
}

impl Message {
    /// Fails when `bytes`, or a message in them, have a field that is not read here.
    pub(super) fn check(&self, bytes: &[u8]) -> Result<(), DecodeError> {
        for item in (Reader { bytes }) {
            let (number, value) = item?;
            let known = self.fields.iter().find(|field| field.number == number);
            let field = known.ok_or(DecodeError::UnknownField { message: self.name, number })?;
            field.kind.check(field.name, value)?;
        }
        Ok(())
    }

    /// The values of a field, in order.
    pub(super) fn values<'b>(field: &Field, bytes: &'b [u8]) -> impl Iterator<Item = Value<'b>> {
        let number = field.number;
        let items = Reader { bytes }.map_while(Result::ok);
        items.filter(move |(found, _)| *found == number).map(|(_, value)| value)
    }
}

impl Kind {
    fn check(self, field: &'static str, value: Value<'_>) -> Result<(), DecodeError> {
        match (self, value) {
            (Self::Unsupported, _) => Err(DecodeError::Unsupported(field)),
            (Self::Message(message), Value::Bytes(bytes)) => message.check(bytes),
            (Self::Map(kind), Value::Bytes(bytes)) => {
                for item in (Reader { bytes }) {
                    match item? {
                        (1, _) => {}
                        (2, value) => kind.check(field, value)?,
                        (number, _) => {
                            return Err(DecodeError::UnknownField { message: field, number });
                        }
                    }
                }
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

/// The fields of a message, one after the other.
pub(super) struct Reader<'b> {
    pub(super) bytes: &'b [u8],
}

impl<'b> Reader<'b> {
    /// The next number in the encoding of seven bits a byte, least first.
    pub(super) fn number(&mut self) -> Option<u64> {
        let mut number = 0_u64;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.bytes.split_first()?;
            self.bytes = rest;
            number |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Some(number);
            }
        }
        None
    }

    fn take(&mut self, count: usize) -> Option<&'b [u8]> {
        let (taken, rest) = self.bytes.split_at_checked(count)?;
        self.bytes = rest;
        Some(taken)
    }

    /// The next field: its number and value. Of a group, which no known message has, only the number counts.
    fn field(&mut self) -> Option<(u32, Value<'b>)> {
        let key = self.number()?;
        let number = u32::try_from(key >> 3).ok()?;
        let value = match key & 7 {
            0 => Value::Number(self.number()?),
            1 => Value::Bytes(self.take(8)?),
            2 => {
                let length = usize::try_from(self.number()?).ok()?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Bytes(self.take(4)?),
            _ => Value::Bytes(std::mem::take(&mut self.bytes)),
        };
        Some((number, value))
    }
}

impl<'b> Iterator for Reader<'b> {
    type Item = Result<(u32, Value<'b>), DecodeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.bytes.is_empty() {
            return None;
        }
        Some(self.field().ok_or_else(|| {
            self.bytes = &[];
            DecodeError::Malformed
        }))
    }
}
