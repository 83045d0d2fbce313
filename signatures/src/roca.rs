// SPDX-License-Identifier: Apache-2.0
//! Tells an RSA modulus that a certain library of smart cards has made (CVE-2017-15361, "ROCA"): its primes can be found.
//!
//! Such primes are k*M + (65537^a mod M), M being a product of small primes; so the modulus is a power of 65537 modulo each
//! of these. For any other modulus that is so by chance only, one time in 2^27 (Nemec et al., "The Return of
//! Coppersmith's Attack", CCS 2017, section 2).

/// The primes that are in M for every length of key.
const PRIMES: [u32; 38] = [
    3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37, 41, 43, 47, 53, 59, 61, 67, 71, 73, 79, 83, 89, 97, 101, 103, 107, 109,
    113, 127, 131, 137, 139, 149, 151, 157, 163, 167,
];

/// Whether a modulus, big-endian, is of this kind.
pub(crate) fn is_weak(modulus: &[u8]) -> bool {
    PRIMES
        .iter()
        .all(|prime| is_power(modulus.iter().fold(0, |rest, byte| (rest * 256 + u32::from(*byte)) % prime), *prime))
}

/// Whether `number` is a power of 65537 modulo `prime`.
fn is_power(number: u32, prime: u32) -> bool {
    let mut power = 1;
    loop {
        if power == number {
            return true;
        }
        power = power * (65_537 % prime) % prime;
        if power == 1 {
            return false;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn powers_are_told_from_other_numbers() {
        assert!(is_weak(&[1, 0, 1]), "65537 itself");
        assert!(is_weak(&[1]));
        assert!(!is_weak(&[2]) && !is_weak(&[0xff; 256]) && !is_weak(&[]));
        assert!(is_power(4, 5) && !is_power(0, 5), "65537 is 2 modulo 5, and makes all but 0");
        assert!(!is_power(3, 17), "65537 is 2 modulo 17, and makes half of the numbers");
    }
}
