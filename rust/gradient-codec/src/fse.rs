//! Finite state entropy of the few small numbers that describe a Huffman tree, as zstd's frames have it (RFC 8878, 4.1).

/// Numbers that are coded are less than this.
const NUM_SYMBOLS: usize = 12;

/// Of how many states the table is: the most that such a description may have.
const TABLE_BITS: u32 = 6;
const TABLE_LEN: usize = 1 << TABLE_BITS;

/// Bits, from the lowest on.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    open: u64,
    num_open: u32,
}

impl Bits {
    fn put(&mut self, value: u32, num: u32) {
        self.open |= u64::from(value & ((1 << num) - 1)) << self.num_open;
        self.num_open += num;
        while self.num_open >= 8 {
            self.bytes.push(self.open as u8);
            self.open >>= 8;
            self.num_open -= 8;
        }
    }

    /// Fills the last byte with zeros.
    fn align(&mut self) {
        if self.num_open > 0 {
            self.put(0, 8 - self.num_open);
        }
    }
}

/// Encodes a table and the symbols by it, two states in turns. None: they are less than three, or all the same.
pub(crate) fn encode(symbols: &[u8]) -> Option<Vec<u8>> {
    let shares = shares_of(symbols)?;
    let table = Table::of(&shares);
    let mut bits = Bits::default();
    put_shares(&shares, &mut bits);
    bits.align();
    // From the last to the first; those at even places are the first state's.
    let mut states: [Option<usize>; 2] = [None; 2];
    for (place, symbol) in symbols.iter().enumerate().rev() {
        let state = &mut states[place % 2];
        *state = Some(match *state {
            None => table.start(*symbol),
            Some(from) => table.step(from, *symbol, &mut bits),
        });
    }
    for state in states.iter().rev() {
        bits.put((*state)? as u32, TABLE_BITS);
    }
    bits.put(1, 1);
    bits.align();
    Some(bits.bytes)
}

/// How many states each symbol has: about as many as it is frequent, one at least.
fn shares_of(symbols: &[u8]) -> Option<[usize; NUM_SYMBOLS]> {
    let mut counts = [0; NUM_SYMBOLS];
    for symbol in symbols {
        *counts.get_mut(usize::from(*symbol))? += 1;
    }
    if symbols.len() < 3 || counts.contains(&symbols.len()) {
        return None;
    }
    let mut shares = counts.map(|count| if count == 0 { 0 } else { (count * TABLE_LEN / symbols.len()).max(1) });
    loop {
        let taken: usize = shares.iter().sum();
        let largest = shares.iter_mut().max()?;
        match taken.cmp(&TABLE_LEN) {
            std::cmp::Ordering::Equal => return Some(shares),
            std::cmp::Ordering::Less => *largest += TABLE_LEN - taken,
            std::cmp::Ordering::Greater => *largest -= 1,
        }
    }
}

/// Writes the shares, each in as many bits as what is left of the table can need.
fn put_shares(shares: &[usize; NUM_SYMBOLS], bits: &mut Bits) {
    bits.put(TABLE_BITS - 5, 4);
    let mut left = TABLE_LEN as u32 + 1;
    let mut threshold = TABLE_LEN as u32;
    let mut num_bits = TABLE_BITS + 1;
    let mut symbol = 0;
    while left > 1 {
        let share = shares[symbol] as u32;
        symbol += 1;
        let most = 2 * threshold - 1 - left;
        left -= share;
        let mut value = share + 1;
        if value >= threshold {
            value += most;
        }
        bits.put(value, if value < most { num_bits - 1 } else { num_bits });
        if share == 0 {
            // How many more follow that have none: as often as three 3 and then how many are left.
            let more = shares[symbol..].iter().take_while(|share| **share == 0).count();
            symbol += more;
            for _ in 0..more / 3 {
                bits.put(3, 2);
            }
            bits.put((more % 3) as u32, 2);
        }
        while left < threshold {
            num_bits -= 1;
            threshold >>= 1;
        }
    }
}

/// What takes an encoder from state to state.
struct Table {
    /// States in the order of their symbols.
    states: [usize; TABLE_LEN],
    /// Of each symbol where its states begin, and how many there are.
    places: [(usize, usize); NUM_SYMBOLS],
}

impl Table {
    fn of(shares: &[usize; NUM_SYMBOLS]) -> Self {
        const STEP: usize = (TABLE_LEN >> 1) + (TABLE_LEN >> 3) + 3;
        let mut spread = [0; TABLE_LEN];
        let mut at = 0;
        for (symbol, share) in shares.iter().enumerate() {
            for _ in 0..*share {
                spread[at] = symbol;
                at = (at + STEP) % TABLE_LEN;
            }
        }
        let mut places = [(0, 0); NUM_SYMBOLS];
        let mut begin = 0;
        for (place, share) in places.iter_mut().zip(shares) {
            *place = (begin, *share);
            begin += share;
        }
        let mut next = places.map(|(begin, _)| begin);
        let mut states = [0; TABLE_LEN];
        for (state, symbol) in spread.iter().enumerate() {
            states[next[*symbol]] = TABLE_LEN + state;
            next[*symbol] += 1;
        }
        Self { states, places }
    }

    /// The state to begin with: it takes no bits.
    fn start(&self, symbol: u8) -> usize {
        self.states[self.places[usize::from(symbol)].0]
    }

    /// Writes the low bits of a state, so many that what is left names one of the symbol's states, and goes there.
    fn step(&self, from: usize, symbol: u8, bits: &mut Bits) -> usize {
        let (begin, share) = self.places[usize::from(symbol)];
        let mut num = 0;
        while from >> num >= 2 * share {
            num += 1;
        }
        bits.put(from as u32, num);
        self.states[begin + (from >> num) - share]
    }
}
