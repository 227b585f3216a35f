//! Changes of seeds, the same ones in every run: what a fuzzer does without looking.

/// An endless row of changed seeds.
#[derive(Debug)]
pub struct Mutations {
    seeds: Vec<Vec<u8>>,
    state: u64,
}

/// Numbers at which things turn.
const TURNS: [u64; 16] = [
    0,
    1,
    2,
    24,
    127,
    128,
    255,
    256,
    65_535,
    65_536,
    1 << 20,
    (1 << 20) + 1,
    u32::MAX as u64,
    1 << 32,
    i64::MAX as u64,
    u64::MAX,
];
/// Longer ones are cut: what is slow finds nothing more.
const LEN_MAX: usize = 1 << 20;

impl Mutations {
    /// Changes of these seeds; of nothing but the empty one if there are none.
    pub fn new(mut seeds: Vec<Vec<u8>>, start: u64) -> Self {
        seeds.push(Vec::new());
        Self { seeds, state: start | 1 }
    }

    fn random(&mut self) -> u64 {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state.wrapping_mul(0x2545_F491_4F6C_DD1D)
    }

    fn below(&mut self, end: usize) -> usize {
        if end == 0 { 0 } else { (self.random() % end as u64) as usize }
    }

    fn change(&mut self, bytes: &mut Vec<u8>) {
        let at = self.below(bytes.len());
        let len = (1 << self.below(7)).min(bytes.len() - at);
        match self.below(9) {
            0 | 1 if !bytes.is_empty() => bytes[at] ^= 1 << self.below(8),
            2 if !bytes.is_empty() => bytes[at] = TURNS[self.below(8)] as u8,
            3 => bytes.truncate(at),
            4 => drop(bytes.drain(at..at + len)),
            5 => {
                let again = bytes[at..at + len].to_vec();
                bytes.splice(at..at, again);
            }
            6 => {
                let new: Vec<u8> = (0..=self.below(8)).map(|_| self.random() as u8).collect();
                bytes.splice(at..at, new);
            }
            7 => {
                // A number, at either end of what it may lie in.
                let (turn, width) = (TURNS[self.below(TURNS.len())], [2, 4, 8][self.below(3)]);
                let number = if self.below(4) == 0 { turn.swap_bytes() } else { turn };
                for (place, byte) in bytes[at..].iter_mut().zip(&number.to_le_bytes()[..width]) {
                    *place = *byte;
                }
            }
            _ => {
                let other = self.below(self.seeds.len());
                let from = self.below(self.seeds[other].len());
                let piece = self.seeds[other][from..].to_vec();
                bytes.truncate(at);
                bytes.extend_from_slice(&piece);
            }
        }
        bytes.truncate(LEN_MAX);
    }
}

impl Iterator for Mutations {
    type Item = Vec<u8>;

    fn next(&mut self) -> Option<Vec<u8>> {
        let seed = self.below(self.seeds.len());
        let mut bytes = self.seeds[seed].clone();
        for _ in 0..=self.below(4) {
            self.change(&mut bytes);
        }
        Some(bytes)
    }
}
