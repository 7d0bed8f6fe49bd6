//! The commands as bytes, after the TPM 2.0 Library, parts 2 and 3. Everything is big-endian.

use crate::error::Error;
use crate::sealed::Pcrs;

/// The longest answer: every TPM's buffer is smaller.
pub(crate) const ANSWER_BYTES: usize = 4096;

const NO_SESSIONS: u16 = 0x8001;
const SESSIONS: u16 = 0x8002;
const OWNER: u32 = 0x4000_0001;
const NOBODY: u32 = 0x4000_0007;
/// Authorisation by a password, which is empty.
const PASSWORD_SESSION: u32 = 0x4000_0009;
const ALG_NULL: u16 = 0x0010;
const ALG_SHA256: u16 = 0x000b;
const ALG_KEYED_HASH: u16 = 0x0008;
const ALG_ECC: u16 = 0x0023;
const ALG_AES: u16 = 0x0006;
const ALG_CFB: u16 = 0x0043;
const CURVE_P256: u16 = 0x0003;
const AES_BITS: u16 = 128;
/// Bound to this TPM and parent, made inside of it, used with its (empty) password, wraps others; no lockout.
const PRIMARY_ATTRIBUTES: u32 = 0x0003_0472;
/// Bound to this TPM and parent, opened by its policy alone; no lockout.
const SEALED_ATTRIBUTES: u32 = 0x0000_0412;
const HASH_BYTES: usize = 32;
/// What a TPM seals.
pub(crate) const SECRET_BYTES: usize = 128;

/// A command that is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    CreatePrimary = 0x131,
    Create = 0x153,
    Load = 0x157,
    Unseal = 0x15e,
    FlushContext = 0x165,
    StartAuthSession = 0x176,
    PolicyPcr = 0x17f,
    PolicyGetDigest = 0x189,
}

impl Command {
    /// For people.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::CreatePrimary => "to make its primary key",
            Self::Create => "to seal",
            Self::Load => "to load what was sealed",
            Self::Unseal => "to unseal",
            Self::FlushContext => "to let go",
            Self::StartAuthSession => "to begin a session",
            Self::PolicyPcr => "the policy of its registers",
            Self::PolicyGetDigest => "to tell its policy",
        }
    }
}

/// What a session is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum SessionKind {
    Policy = 1,
    /// Calculates a policy, proves nothing.
    Trial = 3,
}

/// Something with its bytes.
#[derive(Default)]
pub(crate) struct Bytes(pub(crate) Vec<u8>);

impl Bytes {
    fn u8(mut self, value: u8) -> Self {
        self.0.push(value);
        self
    }
    fn u16(mut self, value: u16) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }
    fn u32(mut self, value: u32) -> Self {
        self.0.extend(value.to_be_bytes());
        self
    }
    fn raw(mut self, bytes: &[u8]) -> Self {
        self.0.extend(bytes);
        self
    }
    /// With their number before them.
    fn sized(self, bytes: &[u8]) -> Self {
        // Nothing that is sent is longer than a TPM's buffer.
        let length = u16::try_from(bytes.len()).unwrap_or(u16::MAX);
        self.u16(length).raw(bytes)
    }
}

fn command(tag: u16, command: Command, body: &Bytes) -> Vec<u8> {
    const HEADER_BYTES: usize = 10;
    let length = u32::try_from(HEADER_BYTES + body.0.len()).unwrap_or(u32::MAX);
    Bytes::default().u16(tag).u32(length).u32(command as u32).raw(&body.0).0
}

/// Handles, then one session without nonces, then parameters.
fn authorised(code: Command, handle: u32, session: u32, parameters: &Bytes) -> Vec<u8> {
    let authorisation = Bytes::default().u32(session).sized(&[]).u8(0).sized(&[]);
    let length = u32::try_from(authorisation.0.len()).unwrap_or(u32::MAX);
    let body = Bytes::default().u32(handle).u32(length).raw(&authorisation.0).raw(&parameters.0);
    command(SESSIONS, code, &body)
}

fn sensitive(secret: &[u8]) -> Vec<u8> {
    Bytes::default().sized(&[]).sized(secret).0
}

fn selection(pcrs: Pcrs) -> Bytes {
    Bytes::default().u32(1).u16(ALG_SHA256).u8(3).raw(&pcrs.bitmap())
}

/// A key of the owner's hierarchy that wraps others. From the same template a TPM always makes the same one.
pub(crate) fn create_primary() -> Vec<u8> {
    let public = Bytes::default().u16(ALG_ECC).u16(ALG_SHA256).u32(PRIMARY_ATTRIBUTES).sized(&[]);
    let public = public.u16(ALG_AES).u16(AES_BITS).u16(ALG_CFB).u16(ALG_NULL).u16(CURVE_P256).u16(ALG_NULL);
    let public = public.sized(&[]).sized(&[]);
    let parameters = Bytes::default().sized(&sensitive(&[])).sized(&public.0).sized(&[]).u32(0);
    authorised(Command::CreatePrimary, OWNER, PASSWORD_SESSION, &parameters)
}

/// An object that holds a secret and opens by a policy.
pub(crate) fn create(parent: u32, secret: &[u8], policy: &[u8]) -> Vec<u8> {
    let public = Bytes::default().u16(ALG_KEYED_HASH).u16(ALG_SHA256).u32(SEALED_ATTRIBUTES).sized(policy);
    let public = public.u16(ALG_NULL).sized(&[]);
    let parameters = Bytes::default().sized(&sensitive(secret)).sized(&public.0).sized(&[]).u32(0);
    authorised(Command::Create, parent, PASSWORD_SESSION, &parameters)
}

pub(crate) fn load(parent: u32, private: &[u8], public: &[u8]) -> Vec<u8> {
    authorised(Command::Load, parent, PASSWORD_SESSION, &Bytes::default().sized(private).sized(public))
}

pub(crate) fn unseal(object: u32, session: u32) -> Vec<u8> {
    authorised(Command::Unseal, object, session, &Bytes::default())
}

pub(crate) fn start_session(kind: SessionKind) -> Vec<u8> {
    // Without secrets in the session its nonces protect nothing; their least length is that of a hash's half.
    let body = Bytes::default().u32(NOBODY).u32(NOBODY).sized(&[0; HASH_BYTES / 2]).sized(&[]);
    command(NO_SESSIONS, Command::StartAuthSession, &body.u8(kind as u8).u16(ALG_NULL).u16(ALG_SHA256))
}

pub(crate) fn policy_pcr(session: u32, pcrs: Pcrs) -> Vec<u8> {
    let body = Bytes::default().u32(session).sized(&[]).raw(&selection(pcrs).0);
    command(NO_SESSIONS, Command::PolicyPcr, &body)
}

pub(crate) fn policy_digest(session: u32) -> Vec<u8> {
    command(NO_SESSIONS, Command::PolicyGetDigest, &Bytes::default().u32(session))
}

pub(crate) fn flush(handle: u32) -> Vec<u8> {
    command(NO_SESSIONS, Command::FlushContext, &Bytes::default().u32(handle))
}

/// An answer on the way through it.
pub(crate) struct Answer<'a> {
    rest: &'a [u8],
    to: Command,
}

impl<'a> Answer<'a> {
    /// Checks the header and takes it away. Parameters follow, of which a command with sessions tells the length first.
    pub(crate) fn parse(bytes: &'a [u8], to: Command) -> Result<Self, Error> {
        let mut answer = Self { rest: bytes, to };
        let (tag, length, code) = (answer.u16()?, answer.u32()?, answer.u32()?);
        if usize::try_from(length).ok() != Some(bytes.len()) {
            return Err(Error::Damaged(to.name()));
        }
        match (tag, code) {
            (NO_SESSIONS | SESSIONS, 0) => Ok(answer),
            (_, 0) => Err(Error::Damaged(to.name())),
            (_, code) => Err(Error::Refused { command: to.name(), code }),
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(count).ok_or(Error::Damaged(self.to.name()))?;
        self.rest = rest;
        Ok(taken)
    }

    fn u16(&mut self) -> Result<u16, Error> {
        let to = self.to.name();
        self.take(2)?.try_into().map(u16::from_be_bytes).map_err(|_length| Error::Damaged(to))
    }

    pub(crate) fn u32(&mut self) -> Result<u32, Error> {
        let to = self.to.name();
        self.take(4)?.try_into().map(u32::from_be_bytes).map_err(|_length| Error::Damaged(to))
    }

    pub(crate) fn sized(&mut self) -> Result<&'a [u8], Error> {
        let length = self.u16()?;
        self.take(usize::from(length))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn commands_begin_with_what_they_are_and_how_long() {
        assert_eq!(flush(0x8000_0001), [0x80, 1, 0, 0, 0, 14, 0, 0, 1, 0x65, 0x80, 0, 0, 1]);
        for said in [create_primary(), create(1, &[7; 32], &[0; 32]), policy_pcr(3, Pcrs::try_new([7]).unwrap())] {
            assert_eq!(usize::try_from(u32::from_be_bytes(said[2..6].try_into().unwrap())).unwrap(), said.len());
        }
    }

    #[test]
    fn a_refusal_is_told_by_its_code() {
        let refused = [0x80, 1, 0, 0, 0, 10, 0, 0, 1, 0x9d];
        let Err(error) = Answer::parse(&refused, Command::Unseal) else { panic!("taken") };
        assert_eq!(error.to_string(), "the TPM refuses to unseal: response code 0x19d");
    }

    proptest! {
        #[test]
        fn any_answer_is_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..64)) {
            if let Ok(mut answer) = Answer::parse(&bytes, Command::Create) {
                while answer.sized().is_ok_and(|part| !part.is_empty()) {}
            }
        }
    }
}
