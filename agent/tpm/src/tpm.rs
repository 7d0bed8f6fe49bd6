//! A TPM that is spoken to.

use std::fs::OpenOptions;
use std::io::{Read, Write};
use std::path::Path;

use crate::error::Error;
use crate::sealed::{Pcrs, Sealed};
use crate::wire::{self, ANSWER_BYTES, Answer, Command, SECRET_BYTES, SessionKind};

/// Where the kernel has it, with its resource manager in between.
const DEVICE: &str = "/dev/tpmrm0";
/// Of a response: it is about one of the command's parts, whose number it tells; and the part that says what is wrong.
const ABOUT_A_PART: u32 = 0x80;
const WRONG: u32 = 0x3f;
const WRONG_INTEGRITY: u32 = 0x1f;
const WRONG_POLICY: u32 = 0x1d;

/// A TPM that is spoken to: a command is written at once, its answer is read at once.
pub struct Tpm<S> {
    stream: S,
}

impl Tpm<std::fs::File> {
    /// This machine's.
    ///
    /// # Errors
    /// It has none, or it cannot be opened.
    pub fn open() -> Result<Self, Error> {
        let device = Path::new(DEVICE);
        match OpenOptions::new().read(true).write(true).open(device) {
            Ok(stream) => Ok(Self::new(stream)),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(Error::Absent { device: device.into() }),
            Err(source) => Err(Error::Device { step: "open the TPM", source }),
        }
    }
}

impl<S: Read + Write> Tpm<S> {
    /// One behind a stream.
    pub fn new(stream: S) -> Self {
        Self { stream }
    }

    /// Wraps a secret so that only this TPM, with these registers as they are now, gives it out.
    ///
    /// # Errors
    /// The TPM refuses.
    pub fn seal(&mut self, secret: &[u8], pcrs: Pcrs) -> Result<Sealed, Error> {
        if secret.is_empty() || secret.len() > SECRET_BYTES {
            return Err(Error::Length(secret.len()));
        }
        let policy = self.with_session(SessionKind::Trial, pcrs, |tpm, session| {
            let answer = tpm.say(Command::PolicyGetDigest, &wire::policy_digest(session))?;
            Ok(Answer::parse(&answer, Command::PolicyGetDigest)?.sized()?.to_vec())
        })?;
        self.with_primary(|tpm, primary| {
            let answer = tpm.say(Command::Create, &wire::create(primary, secret, &policy))?;
            let mut answer = Answer::parse(&answer, Command::Create)?;
            let _length = answer.u32()?;
            let (private, public) = (answer.sized()?.to_vec(), answer.sized()?.to_vec());
            Ok(Sealed { public, private, pcrs })
        })
    }

    /// The secret.
    ///
    /// # Errors
    /// It was sealed by another TPM, the registers changed, or the TPM fails.
    pub fn unseal(&mut self, sealed: &Sealed) -> Result<Vec<u8>, Error> {
        self.with_primary(|tpm, primary| {
            let loaded = tpm.say(Command::Load, &wire::load(primary, &sealed.private, &sealed.public));
            let loaded = loaded.and_then(|answer| Answer::parse(&answer, Command::Load)?.u32());
            let object = loaded.map_err(|error| if is(&error, WRONG_INTEGRITY) { Error::Foreign } else { error })?;
            let secret = tpm.with_session(SessionKind::Policy, sealed.pcrs, |tpm, session| {
                let answer = tpm.say(Command::Unseal, &wire::unseal(object, session))?;
                let mut answer = Answer::parse(&answer, Command::Unseal)?;
                let _length = answer.u32()?;
                Ok(answer.sized()?.to_vec())
            });
            tpm.let_go(object);
            secret.map_err(|error| {
                let changed = Error::Changed { pcrs: sealed.pcrs.to_string() };
                if is(&error, WRONG_POLICY) { changed } else { error }
            })
        })
    }

    fn with_primary<T>(&mut self, work: impl FnOnce(&mut Self, u32) -> Result<T, Error>) -> Result<T, Error> {
        let answer = self.say(Command::CreatePrimary, &wire::create_primary())?;
        let primary = Answer::parse(&answer, Command::CreatePrimary)?.u32()?;
        let done = work(self, primary);
        self.let_go(primary);
        done
    }

    /// With a session that has these registers in its policy.
    fn with_session<T>(
        &mut self,
        kind: SessionKind,
        pcrs: Pcrs,
        work: impl FnOnce(&mut Self, u32) -> Result<T, Error>,
    ) -> Result<T, Error> {
        let answer = self.say(Command::StartAuthSession, &wire::start_session(kind))?;
        let session = Answer::parse(&answer, Command::StartAuthSession)?.u32()?;
        let bound = self.say(Command::PolicyPcr, &wire::policy_pcr(session, pcrs));
        let bound = bound.and_then(|answer| Answer::parse(&answer, Command::PolicyPcr).map(drop));
        let done = bound.and_then(|()| work(self, session));
        self.let_go(session);
        done
    }

    /// What cannot be let go is let go by the kernel when the device is closed.
    fn let_go(&mut self, handle: u32) {
        drop(self.say(Command::FlushContext, &wire::flush(handle)));
    }

    fn say(&mut self, command: Command, bytes: &[u8]) -> Result<Vec<u8>, Error> {
        let failed = |source| Error::Device { step: command.name(), source };
        self.stream.write_all(bytes).and_then(|()| self.stream.flush()).map_err(failed)?;
        let mut answer = vec![0; ANSWER_BYTES];
        let count = self.stream.read(&mut answer).map_err(failed)?;
        answer.truncate(count);
        Ok(answer)
    }
}

fn is(error: &Error, wrong: u32) -> bool {
    matches!(error, Error::Refused { code, .. } if code & ABOUT_A_PART != 0 && code & WRONG == wrong)
}
