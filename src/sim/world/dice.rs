//! Numbers out of a seed and a name: the same place gives the same numbers, whatever else was drawn before.

use crate::sim::generate::Dice;

/// A seed from which every part of the world draws by its own name, so that a person more, a vendor less or another
/// order of requests changes nothing for the others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seed(pub u64);

impl Seed {
    /// The seed of a part: of this name, with this number.
    #[must_use]
    pub fn of(self, name: &str, number: u64) -> Self {
        let mut hash = 0xcbf2_9ce4_8422_2325_u64 ^ self.0;
        for byte in name.bytes().chain(number.to_be_bytes()) {
            hash = (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Self(Dice::new(hash).roll())
    }

    /// Its dice.
    #[must_use]
    pub const fn dice(self) -> Draw {
        Draw(Dice::new(self.0))
    }

    /// Whether a share of so many percent has this part.
    #[must_use]
    pub fn within(self, percent: u32) -> bool {
        self.dice().0.roll() % 100 < u64::from(percent)
    }

    /// A text of so many characters of hexadecimal, at most 64.
    #[must_use]
    pub fn hex(self, characters: usize) -> String {
        let mut dice = self.dice();
        let long: String = (0..4).map(|_| format!("{:016x}", dice.0.roll())).collect();
        long.chars().take(characters).collect()
    }

    /// An id in the form of a UUID.
    #[must_use]
    pub fn uuid(self) -> String {
        let mut dice = self.dice();
        let id =
            uuid::Builder::from_u128((u128::from(dice.0.roll()) << 64) | u128::from(dice.0.roll()));
        let id = id.with_variant(uuid::Variant::RFC4122).with_version(uuid::Version::Random);
        id.into_uuid().to_string()
    }
}

/// Dice that give whole numbers between bounds: values are made of whole numbers and divided last, so that what is
/// written as JSON is what the ledger says, to the last digit.
#[derive(Clone, Debug)]
pub struct Draw(Dice);

impl Draw {
    /// A number from `low` to `high`, both included; `low` where they are the wrong way round.
    pub fn between(&mut self, low: i32, high: i32) -> i32 {
        let width = u64::try_from(i64::from(high) - i64::from(low) + 1).unwrap_or(1).max(1);
        let more = i64::try_from(self.0.roll() % width).unwrap_or(0);
        i32::try_from(i64::from(low) + more).unwrap_or(low)
    }

    /// Whether it is one of so many percent.
    pub fn percent(&mut self, share: i32) -> bool {
        self.between(1, 100) <= share
    }

    /// One of these.
    pub fn pick<T: Copy>(&mut self, from: &[T], otherwise: T) -> T {
        self.0.pick(from).copied().unwrap_or(otherwise)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_draws_by_its_own_name() {
        let seed = Seed(7);
        assert_eq!(seed.of("a", 1), seed.of("a", 1));
        let others = [seed.of("a", 2), seed.of("b", 1), Seed(8).of("a", 1)];
        assert!(others.iter().all(|other| *other != seed.of("a", 1)));
        assert_eq!(seed.hex(20).len(), 20);
        assert_eq!(uuid::Uuid::try_parse(&seed.uuid()).map(|id| id.get_version_num()), Ok(4));
    }

    #[test]
    fn bounds_are_included_and_shares_are_kept() {
        let mut dice = Seed(1).dice();
        let drawn: Vec<i32> = (0..200).map(|_| dice.between(-1, 1)).collect();
        assert!([-1, 0, 1].iter().all(|value| drawn.contains(value)));
        assert!(drawn.iter().all(|value| (-1..=1).contains(value)));
        let hit = (0..10_000).filter(|number| Seed(3).of("x", *number).within(20)).count();
        assert!((1_800..2_200).contains(&hit), "{hit}");
    }
}
