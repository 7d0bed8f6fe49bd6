//! What is kept outside of the TPM.

use std::fmt;

use crate::error::Error;

const REGISTERS: u32 = 24;

/// Some of the TPM's registers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pcrs(u32);

impl Pcrs {
    /// Those with these numbers.
    ///
    /// # Errors
    /// There is none, or one that no TPM has.
    pub fn try_new(numbers: impl IntoIterator<Item = u32>) -> Result<Self, Error> {
        let mask = numbers
            .into_iter()
            .try_fold(0, |mask, number| if number < REGISTERS { Ok(mask | 1 << number) } else { Err(Error::Pcrs) })?;
        if mask == 0 { Err(Error::Pcrs) } else { Ok(Self(mask)) }
    }

    /// Their numbers.
    pub fn numbers(self) -> impl Iterator<Item = u32> {
        (0..REGISTERS).filter(move |number| self.0 & 1 << number != 0)
    }

    /// A bit for each, as the TPM reads it.
    pub(crate) fn bitmap(self) -> [u8; 3] {
        let [first, second, third, _] = self.0.to_le_bytes();
        [first, second, third]
    }
}

impl fmt::Display for Pcrs {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let numbers: Vec<String> = self.numbers().map(|number| number.to_string()).collect();
        f.write_str(&numbers.join(", "))
    }
}

/// A secret as its TPM wrapped it: of no use to anybody else.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sealed {
    /// The object's public part.
    pub public: Vec<u8>,
    /// Its private part, encrypted by the TPM.
    pub private: Vec<u8>,
    /// The registers that must be as they were.
    pub pcrs: Pcrs,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registers_are_numbered_from_0_to_23() {
        let pcrs = Pcrs::try_new([7, 0, 23]).unwrap();
        assert_eq!((pcrs.to_string().as_str(), pcrs.bitmap()), ("0, 7, 23", [0x81, 0, 0x80]));
        assert!(Pcrs::try_new([24]).is_err() && Pcrs::try_new([]).is_err());
    }
}
