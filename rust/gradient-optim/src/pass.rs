//! The one pass: each block is read, decoded, updated, coded and written while it is in registers.
#![expect(clippy::inline_always, reason = "what is not inlined is compiled for any processor")]

use half::slice::HalfFloatSliceExt as _;

use crate::tensor::{Codes, Moment, Tensor, Tile};
use crate::{Crew, Fixed, Floats, OptimError};
use gradient_codec::quantize::lanes::{LaneKind, Lanes, OnLanes, dispatch};
use gradient_codec::quantize::variance::Rounding;
use gradient_codec::quantize::{BLOCK, GROUPS, LANES, groups, groups_mut, momentum, variance};

/// How far ahead of a block memory is asked for, in elements.
const AHEAD: usize = 1024;

/// What a step computes.
pub(crate) trait Rule: Copy + Send + Sync {
    /// Whether there are second moments.
    const HAS_VARIANCE: bool;

    /// What it computes with, in registers.
    type Registers<L: Lanes>: Copy;

    /// Loads that.
    fn load<L: Lanes>(self, lanes: L) -> Self::Registers<L>;

    /// Updates sixteen elements; returns the parameter and both moments. Always inlined.
    fn update<L: Lanes>(lanes: L, with: Self::Registers<L>, of: Sixteen<L>) -> [L::Floats; 3];

    /// How second moments become codes.
    fn rounding(self, key: u32) -> Rounding;
}

/// Sixteen elements as they were.
#[derive(Clone, Copy)]
pub(crate) struct Sixteen<L: Lanes> {
    pub(crate) param: L::Floats,
    pub(crate) grad: L::Floats,
    /// First moments, to be multiplied by their scale.
    pub(crate) momentum: L::Floats,
    /// Just enough less to become the codes below; themselves where they are not coded.
    pub(crate) momentum_below: L::Floats,
    pub(crate) momentum_scale: L::Floats,
    /// Second moments, likewise.
    pub(crate) variance: L::Floats,
    pub(crate) variance_scale: L::Floats,
}

impl<L: Lanes> Sixteen<L> {
    /// Returns the first moment: what is kept of it, and what is added.
    ///
    /// What is added may be next to nothing. Then a code is lost at least: a small one would be rounded back to itself for
    /// ever, while the second moment decays beside it and an idle parameter drifts away.
    #[inline(always)]
    pub(crate) fn momentum_with(self, lanes: L, keep: Keep<L::Floats>, added: L::Floats) -> L::Floats {
        let noticed = lanes.mul(self.momentum, lanes.mul(self.momentum_scale, keep.noticed));
        let kept = lanes.mul(self.momentum, keep.factor);
        let kept = lanes.nearer_zero_where_less(lanes.abs(added), lanes.abs(noticed), kept, self.momentum_below);
        lanes.mul_add(kept, self.momentum_scale, added)
    }
}

/// How much of a first moment is kept.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Keep<F> {
    factor: F,
    /// What is added of a gradient that is an eighth of the moment, as a part of it.
    noticed: F,
}

impl Keep<f32> {
    /// So much.
    pub(crate) fn new(factor: f64) -> Self {
        Self { factor: factor as f32, noticed: ((1.0 - factor) / 8.0) as f32 }
    }

    pub(crate) fn load<L: Lanes>(self, lanes: L) -> Keep<L::Floats> {
        Keep { factor: lanes.splat(self.factor), noticed: lanes.splat(self.noticed) }
    }
}

/// Tiles, each with what is done to it.
pub(crate) struct Tiles<'a, R>(Vec<OnTile<'a, R>>);

impl<'a, R: Rule> Tiles<'a, R> {
    /// Of no tensors.
    pub(crate) fn new() -> Self {
        Self(Vec::new())
    }

    /// Cuts tensors into tiles; the first has this number in an error.
    pub(crate) fn add(&mut self, rule: R, tensors: Vec<Tensor<'a>>, first: usize) -> Result<(), OptimError> {
        for (number, tensor) in (first..).zip(tensors) {
            self.0.extend(tensor.tiles(number, R::HAS_VARIANCE)?.into_iter().map(|tile| OnTile(rule, tile)));
        }
        Ok(())
    }

    /// Does the step.
    pub(crate) fn step(self, kind: LaneKind, crew: &Crew) {
        let numel = self.0.iter().map(|OnTile(_, tile)| tile.part.numel()).sum();
        crew.each(self.0, numel, |on_tile| dispatch(kind, on_tile));
    }
}

/// A step on a tile.
struct OnTile<'a, R>(R, Tile<'a>);

impl<R: Rule> OnLanes for OnTile<'_, R> {
    type Output = ();

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        let Self(rule, tile) = self;
        let pass = Pass::<L, R> { lanes, with: rule.load(lanes), rounding: rule.rounding(tile.key) };
        let first = tile.part.number();
        match tile {
            // What most of a model is takes the short way.
            Tile {
                param: Floats::F32(param),
                grad: Fixed::F32(grad),
                momentum: Moment::Codes(momentum),
                variance,
                part,
                ..
            } if part.are_whole() && variance.is_coded_if(R::HAS_VARIANCE) => {
                pass.coded(param, grad, momentum, variance, first);
            }
            Tile {
                param: Floats::Bf16(param),
                grad: Fixed::Bf16(grad),
                momentum: Moment::Codes(momentum),
                variance,
                part,
                ..
            } if part.are_whole() && variance.is_coded_if(R::HAS_VARIANCE) => {
                pass.coded(param.reinterpret_cast_mut(), grad.reinterpret_cast(), momentum, variance, first);
            }
            tile => pass.any(tile, first),
        }
    }
}

/// An element of a parameter or a gradient.
trait Element: Copy {
    /// Reads sixteen.
    fn load<L: Lanes>(lanes: L, from: &[Self; LANES]) -> L::Floats;
    /// Writes sixteen.
    fn store<L: Lanes>(lanes: L, to: &mut [Self; LANES], floats: L::Floats);
}

impl Element for f32 {
    #[inline(always)]
    fn load<L: Lanes>(lanes: L, from: &[Self; LANES]) -> L::Floats {
        lanes.load(from)
    }

    #[inline(always)]
    fn store<L: Lanes>(lanes: L, to: &mut [Self; LANES], floats: L::Floats) {
        lanes.store(to, floats);
    }
}

/// The bits of a `bfloat16`.
impl Element for u16 {
    #[inline(always)]
    fn load<L: Lanes>(lanes: L, from: &[Self; LANES]) -> L::Floats {
        lanes.of_bf16(from)
    }

    #[inline(always)]
    fn store<L: Lanes>(lanes: L, to: &mut [Self; LANES], floats: L::Floats) {
        lanes.to_bf16(to, floats);
    }
}

/// One block of a moment, as it is kept.
trait Held<L: Lanes> {
    /// What values are multiplied by to be written.
    type Factor: Copy;

    /// Reads sixteen, to be multiplied by [`Self::scale`].
    fn read(&self, lanes: L, group: usize) -> L::Floats;
    /// Reads sixteen, just enough less to become the codes below.
    #[inline(always)]
    fn read_below(&self, lanes: L, group: usize) -> L::Floats {
        self.read(lanes, group)
    }
    /// Returns what they are multiplied by, in every lane.
    fn scale(&self, lanes: L) -> L::Floats;
    /// Returns the larger of both, lane by lane, as far as a scale is made of it.
    #[inline(always)]
    fn larger(_lanes: L, largest: L::Floats, _values: L::Floats) -> L::Floats {
        largest
    }
    /// Writes the scale of all of them; returns what they are written with.
    fn weigh(&mut self, lanes: L, largest: L::Floats) -> Self::Factor;
    /// Writes all of them.
    fn write(self, lanes: L, values: [L::Floats; GROUPS], factor: Self::Factor, rounding: Rounding, number: u64);
    /// Says that what lies ahead will be needed soon.
    fn prefetch(&self, lanes: L);
}

struct MomentumCodes<'a> {
    codes: &'a mut [i8; BLOCK],
    scale: &'a mut f32,
}

impl<L: Lanes> Held<L> for MomentumCodes<'_> {
    type Factor = L::Floats;

    #[inline(always)]
    fn read(&self, lanes: L, group: usize) -> L::Floats {
        momentum::squares(lanes, &groups(self.codes)[group])
    }

    #[inline(always)]
    fn read_below(&self, lanes: L, group: usize) -> L::Floats {
        momentum::squares_below(lanes, &groups(self.codes)[group])
    }

    #[inline(always)]
    fn scale(&self, lanes: L) -> L::Floats {
        lanes.splat(*self.scale * momentum::UNIT)
    }

    #[inline(always)]
    fn larger(lanes: L, largest: L::Floats, values: L::Floats) -> L::Floats {
        lanes.larger(largest, lanes.abs(values))
    }

    #[inline(always)]
    fn weigh(&mut self, lanes: L, largest: L::Floats) -> L::Floats {
        let scale = momentum::scale(lanes, largest);
        *self.scale = scale.kept;
        scale.factor
    }

    #[inline(always)]
    fn write(self, lanes: L, values: [L::Floats; GROUPS], factor: L::Floats, _rounding: Rounding, _number: u64) {
        momentum::code(lanes, values, factor, groups_mut(self.codes));
    }

    #[inline(always)]
    fn prefetch(&self, lanes: L) {
        lanes.prefetch(self.codes, AHEAD);
    }
}

struct VarianceCodes<'a> {
    codes: &'a mut [u8; BLOCK],
    scale: &'a mut f32,
}

impl<L: Lanes> Held<L> for VarianceCodes<'_> {
    type Factor = L::Floats;

    #[inline(always)]
    fn read(&self, lanes: L, group: usize) -> L::Floats {
        variance::fourths(lanes, &groups(self.codes)[group])
    }

    #[inline(always)]
    fn scale(&self, lanes: L) -> L::Floats {
        lanes.splat(*self.scale * variance::UNIT)
    }

    #[inline(always)]
    fn larger(lanes: L, largest: L::Floats, values: L::Floats) -> L::Floats {
        lanes.larger(largest, values)
    }

    #[inline(always)]
    fn weigh(&mut self, lanes: L, largest: L::Floats) -> L::Floats {
        let scale = variance::scale(lanes, largest);
        *self.scale = scale.kept;
        scale.factor
    }

    #[inline(always)]
    fn write(self, lanes: L, values: [L::Floats; GROUPS], factor: L::Floats, rounding: Rounding, number: u64) {
        variance::code(lanes, values, factor, rounding, number, groups_mut(self.codes));
    }

    #[inline(always)]
    fn prefetch(&self, lanes: L) {
        lanes.prefetch(self.codes, AHEAD);
    }
}

/// Not coded.
struct InFull<'a>(&'a mut [f32; BLOCK]);

impl<L: Lanes> Held<L> for InFull<'_> {
    type Factor = ();

    #[inline(always)]
    fn weigh(&mut self, _lanes: L, _largest: L::Floats) {}

    #[inline(always)]
    fn read(&self, lanes: L, group: usize) -> L::Floats {
        lanes.load(&groups(self.0)[group])
    }

    #[inline(always)]
    fn scale(&self, lanes: L) -> L::Floats {
        lanes.splat(1.0)
    }

    #[inline(always)]
    fn write(self, lanes: L, values: [L::Floats; GROUPS], _factor: (), _rounding: Rounding, _number: u64) {
        for (floats, values) in groups_mut(self.0).iter_mut().zip(values) {
            lanes.store(floats, values);
        }
    }

    #[inline(always)]
    fn prefetch(&self, _lanes: L) {}
}

/// There is none.
struct Nothing;

impl<L: Lanes> Held<L> for Nothing {
    type Factor = ();

    #[inline(always)]
    fn weigh(&mut self, _lanes: L, _largest: L::Floats) {}

    #[inline(always)]
    fn read(&self, lanes: L, _group: usize) -> L::Floats {
        lanes.splat(0.0)
    }

    #[inline(always)]
    fn scale(&self, lanes: L) -> L::Floats {
        lanes.splat(0.0)
    }

    #[inline(always)]
    fn write(self, _lanes: L, _values: [L::Floats; GROUPS], _factor: (), _rounding: Rounding, _number: u64) {}

    #[inline(always)]
    fn prefetch(&self, _lanes: L) {}
}

/// What all blocks of a tile are stepped with.
struct Pass<L: Lanes, R: Rule> {
    lanes: L,
    with: R::Registers<L>,
    rounding: Rounding,
}

impl<L: Lanes, R: Rule> Pass<L, R> {
    /// Steps whole blocks whose moments are coded, `first` being the number of the first.
    #[inline(always)]
    fn coded<E: Element>(
        &self,
        param: &mut [E],
        grad: &[E],
        momentum: Codes<'_, i8>,
        variance: Moment<'_, u8>,
        first: u64,
    ) {
        if let Moment::Codes(Codes { codes, scales }) = variance {
            let blocks = codes.as_chunks_mut::<BLOCK>().0.iter_mut().zip(scales);
            let blocks = blocks.map(|(codes, scale)| VarianceCodes { codes, scale });
            self.whole(param, grad, momentum, blocks, first);
        } else {
            self.whole(param, grad, momentum, std::iter::repeat_with(|| Nothing), first);
        }
    }

    /// Steps whole blocks, `first` being the number of the first.
    ///
    /// Each is written after the next one was updated: a processor looks ahead no further than a block, and would else
    /// wait for the scales.
    #[inline(always)]
    fn whole<E: Element, V: Held<L>>(
        &self,
        param: &mut [E],
        grad: &[E],
        momentum: Codes<'_, i8>,
        variances: impl Iterator<Item = V>,
        first: u64,
    ) {
        let params = param.as_chunks_mut::<BLOCK>().0.iter_mut().zip(grad.as_chunks::<BLOCK>().0);
        let momenta = momentum.codes.as_chunks_mut::<BLOCK>().0.iter_mut().zip(momentum.scales);
        let mut blocks = params.zip(momenta).zip(variances).zip(first..);
        let zero = Values::zero(self.lanes);
        let Some(((((param, grad), (codes, scale)), variance), number)) = blocks.next() else { return };
        let mut values = zero;
        let mut before = self.whole_block(param, grad, MomentumCodes { codes, scale }, variance, &mut values, number);
        if L::HOLD_BLOCKS {
            for ((((param, grad), (codes, scale)), variance), number) in blocks {
                let mut own = zero;
                let updated = self.whole_block(param, grad, MomentumCodes { codes, scale }, variance, &mut own, number);
                before.write(self, &values);
                (before, values) = (updated, own);
            }
            before.write(self, &values);
        } else {
            let mut others = zero;
            let (mut past, mut now) = (&mut values, &mut others);
            for ((((param, grad), (codes, scale)), variance), number) in blocks {
                let updated = self.whole_block(param, grad, MomentumCodes { codes, scale }, variance, now, number);
                before.write(self, past);
                before = updated;
                std::mem::swap(&mut now, &mut past);
            }
            before.write(self, past);
        }
    }

    /// Updates one, and has memory asked for.
    #[inline(always)]
    fn whole_block<'a, E: Element, V: Held<L>>(
        &self,
        param: &mut [E; BLOCK],
        grad: &[E; BLOCK],
        momentum: MomentumCodes<'a>,
        variance: V,
        values: &mut Values<L>,
        number: u64,
    ) -> Updated<L, MomentumCodes<'a>, V> {
        let width = size_of::<E>();
        for line in (0..BLOCK * width).step_by(64) {
            self.lanes.prefetch(param, AHEAD * width + line);
            self.lanes.prefetch(grad, AHEAD * width + line);
        }
        Held::<L>::prefetch(&momentum, self.lanes);
        variance.prefetch(self.lanes);
        self.update(param, grad, momentum, variance, values, number)
    }

    /// Steps a tile of any kind, through blocks of its own; what is not there is zero and stays so.
    #[inline(always)]
    fn any(&self, tile: Tile<'_>, first: u64) {
        let Tile { mut param, grad, mut momentum, mut variance, part, .. } = tile;
        for (index, range) in part.ranges().enumerate() {
            let (start, len) = (range.start, range.len());
            let number = first + index as u64;
            let mut own_param = param.read(start, len);
            let own_grad = grad.read(start, len);
            match &mut momentum {
                Moment::Codes(Codes { codes, scales }) => {
                    let mut own = padded(&codes[range.clone()]);
                    let held = MomentumCodes { codes: &mut own, scale: &mut scales[index] };
                    self.with_momentum(&mut own_param, &own_grad, held, &mut variance, range.clone(), index, number);
                    codes[range].copy_from_slice(&own[..len]);
                }
                Moment::Floats(floats) => {
                    let mut own = floats.read(start, len);
                    let held = InFull(&mut own);
                    self.with_momentum(&mut own_param, &own_grad, held, &mut variance, range, index, number);
                    floats.write(start, len, &own);
                }
                // Every rule has a momentum: lengths were compared.
                Moment::None => {}
            }
            param.write(start, len, &own_param);
        }
    }

    /// Steps a block, of whose second moments it is yet to be seen how they are kept.
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "all of a block")]
    fn with_momentum(
        &self,
        param: &mut [f32; BLOCK],
        grad: &[f32; BLOCK],
        momentum: impl Held<L>,
        variance: &mut Moment<'_, u8>,
        range: std::ops::Range<usize>,
        index: usize,
        number: u64,
    ) {
        let (start, len) = (range.start, range.len());
        match variance {
            Moment::Codes(Codes { codes, scales }) => {
                let mut own = padded(&codes[range.clone()]);
                let held = VarianceCodes { codes: &mut own, scale: &mut scales[index] };
                self.block(param, grad, momentum, held, number);
                codes[range].copy_from_slice(&own[..len]);
            }
            Moment::Floats(floats) => {
                let mut own = floats.read(start, len);
                self.block(param, grad, momentum, InFull(&mut own), number);
                floats.write(start, len, &own);
            }
            Moment::None => self.block(param, grad, momentum, Nothing, number),
        }
    }

    #[inline(always)]
    fn block(
        &self,
        param: &mut [f32; BLOCK],
        grad: &[f32; BLOCK],
        momentum: impl Held<L>,
        variance: impl Held<L>,
        number: u64,
    ) {
        let mut values = Values::zero(self.lanes);
        self.update(param, grad, momentum, variance, &mut values, number).write(self, &values);
    }

    /// Updates a block and writes its scales; its moments are yet to be written.
    #[inline(always)]
    fn update<E: Element, M: Held<L>, V: Held<L>>(
        &self,
        param: &mut [E; BLOCK],
        grad: &[E; BLOCK],
        mut momentum: M,
        mut variance: V,
        values: &mut Values<L>,
        number: u64,
    ) -> Updated<L, M, V> {
        let lanes = self.lanes;
        let (param, grad) = (groups_mut(param), groups(grad));
        let (momentum_scale, variance_scale) = (momentum.scale(lanes), variance.scale(lanes));
        let (mut momentum_max, mut variance_max) = (lanes.splat(0.0), lanes.splat(0.0));
        for group in 0..GROUPS {
            let of = Sixteen {
                param: E::load(lanes, &param[group]),
                grad: E::load(lanes, &grad[group]),
                momentum: momentum.read(lanes, group),
                momentum_below: momentum.read_below(lanes, group),
                momentum_scale,
                variance: variance.read(lanes, group),
                variance_scale,
            };
            let [after, momentum, variance] = R::update(lanes, self.with, of);
            E::store(lanes, &mut param[group], after);
            momentum_max = M::larger(lanes, momentum_max, momentum);
            values.momenta[group] = momentum;
            if R::HAS_VARIANCE {
                variance_max = V::larger(lanes, variance_max, variance);
                values.variances[group] = variance;
            }
        }
        let factors = (momentum.weigh(lanes, momentum_max), variance.weigh(lanes, variance_max));
        Updated { momentum, variance, factors, number }
    }
}

/// The moments of a block between being updated and being written.
#[derive(Clone, Copy)]
struct Values<L: Lanes> {
    momenta: [L::Floats; GROUPS],
    variances: [L::Floats; GROUPS],
}

impl<L: Lanes> Values<L> {
    #[inline(always)]
    fn zero(lanes: L) -> Self {
        Self { momenta: [lanes.splat(0.0); GROUPS], variances: [lanes.splat(0.0); GROUPS] }
    }
}

/// A block whose moments are yet to be written.
struct Updated<L: Lanes, M: Held<L>, V: Held<L>> {
    momentum: M,
    variance: V,
    factors: (M::Factor, V::Factor),
    number: u64,
}

impl<L: Lanes, M: Held<L>, V: Held<L>> Updated<L, M, V> {
    #[inline(always)]
    fn write<R: Rule>(self, pass: &Pass<L, R>, values: &Values<L>) {
        self.momentum.write(pass.lanes, values.momenta, self.factors.0, pass.rounding, self.number);
        self.variance.write(pass.lanes, values.variances, self.factors.1, pass.rounding, self.number);
    }
}

/// A block that may be shorter than others, as long as others.
#[inline(always)]
fn padded<T: Copy + Default>(short: &[T]) -> [T; BLOCK] {
    let mut block = [T::default(); BLOCK];
    block[..short.len()].copy_from_slice(short);
    block
}
