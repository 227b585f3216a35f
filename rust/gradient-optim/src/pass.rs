//! The one pass: each block is read, decoded, updated, coded and written while it is in registers.
#![expect(clippy::inline_always, reason = "what is not inlined is compiled for any processor")]

use gradient_codec::quantize::lanes::{LaneKind, Lanes, OnLanes, dispatch};
use gradient_codec::quantize::variance::Rounding;
use gradient_codec::quantize::{BLOCK, GROUPS, LANES, groups, groups_mut, momentum, variance};
use rayon::prelude::*;

use crate::OptimError;
use crate::tensor::{Codes, Tensor, Tile};

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
    pub(crate) momentum_scale: L::Floats,
    /// Second moments, likewise.
    pub(crate) variance: L::Floats,
    pub(crate) variance_scale: L::Floats,
}

/// Does a step on tensors, in parallel on the threads of the rayon pool that calls. After an error nothing was written.
pub(crate) fn step<R: Rule>(rule: R, tensors: Vec<Tensor<'_>>, kind: LaneKind) -> Result<(), OptimError> {
    let mut tiles = Vec::new();
    for (number, tensor) in tensors.into_iter().enumerate() {
        tiles.append(&mut tensor.tiles(number, R::HAS_VARIANCE)?);
    }
    tiles.into_par_iter().with_max_len(1).for_each(|tile| dispatch(kind, OnTile(rule, tile)));
    Ok(())
}

/// A step on a tile.
struct OnTile<'a, R>(R, Tile<'a>);

impl<R: Rule> OnLanes for OnTile<'_, R> {
    type Output = ();

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        let Self(rule, Tile { param, grad, momentum, variance, part, key }) = self;
        let pass = Pass::<L, R> { lanes, with: rule.load(lanes), rounding: rule.rounding(key) };
        let mut number = part.number();
        // What stands for second moments where there are none.
        let (mut no_codes, mut no_scale) = ([0; BLOCK], 0.0);
        let Codes { codes: variances, scales: variance_scales } = variance;
        let momenta = momentum.codes;
        let mut variance_scales = variance_scales.iter_mut();
        if part.are_whole() {
            let params = param.as_chunks_mut::<BLOCK>().0.iter_mut().zip(grad.as_chunks::<BLOCK>().0);
            let momenta = momenta.as_chunks_mut::<BLOCK>().0.iter_mut().zip(momentum.scales);
            let mut variances = variances.as_chunks_mut::<BLOCK>().0.iter_mut();
            for ((param, grad), (momentum, momentum_scale)) in params.zip(momenta) {
                for line in 0..GROUPS {
                    lanes.prefetch(param, 4 * (AHEAD + LANES * line));
                    lanes.prefetch(grad, 4 * (AHEAD + LANES * line));
                }
                lanes.prefetch(momentum, AHEAD);
                let variance = variances.next().unwrap_or(&mut no_codes);
                if R::HAS_VARIANCE {
                    lanes.prefetch(variance, AHEAD);
                }
                let variance_scale = variance_scales.next().unwrap_or(&mut no_scale);
                pass.block(param, grad, momentum, momentum_scale, variance, variance_scale, number);
                number += 1;
            }
            return;
        }
        for (range, momentum_scale) in part.ranges().zip(momentum.scales) {
            // What is not there is zero and stays so.
            let len = range.len();
            let mut own_param = padded(&param[range.clone()]);
            let own_grad = padded(&grad[range.clone()]);
            let mut own_momentum = padded(&momenta[range.clone()]);
            let of_variance = if R::HAS_VARIANCE { range.clone() } else { 0..0 };
            let mut own_variance = padded(&variances[of_variance.clone()]);
            pass.block(
                &mut own_param,
                &own_grad,
                &mut own_momentum,
                momentum_scale,
                &mut own_variance,
                variance_scales.next().unwrap_or(&mut no_scale),
                number,
            );
            param[range.clone()].copy_from_slice(&own_param[..len]);
            momenta[range].copy_from_slice(&own_momentum[..len]);
            let own_variance = &own_variance[..of_variance.len()];
            variances[of_variance].copy_from_slice(own_variance);
            number += 1;
        }
    }
}

/// A block that may be shorter than others, as long as others.
#[inline(always)]
fn padded<T: Copy + Default>(short: &[T]) -> [T; BLOCK] {
    let mut block = [T::default(); BLOCK];
    block[..short.len()].copy_from_slice(short);
    block
}

/// What all blocks of a tile are stepped with.
struct Pass<L: Lanes, R: Rule> {
    lanes: L,
    with: R::Registers<L>,
    rounding: Rounding,
}

impl<L: Lanes, R: Rule> Pass<L, R> {
    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "all of a block")]
    fn block(
        &self,
        param: &mut [f32; BLOCK],
        grad: &[f32; BLOCK],
        momentum_codes: &mut [i8; BLOCK],
        momentum_scale: &mut f32,
        variance_codes: &mut [u8; BLOCK],
        variance_scale: &mut f32,
        number: u64,
    ) {
        let lanes = self.lanes;
        let (param, grad) = (groups_mut(param), groups(grad));
        let (momentum_codes, variance_codes) = (groups_mut(momentum_codes), groups_mut(variance_codes));
        let zero = lanes.splat(0.0);
        let scales = (lanes.splat(*momentum_scale), lanes.splat(*variance_scale));
        let (mut momenta, mut variances) = ([zero; GROUPS], [zero; GROUPS]);
        for group in 0..GROUPS {
            let of = Sixteen {
                param: lanes.load(&param[group]),
                grad: lanes.load(&grad[group]),
                momentum: momentum::decode(lanes, &momentum_codes[group]),
                momentum_scale: scales.0,
                variance: if R::HAS_VARIANCE { variance::decode(lanes, &variance_codes[group]) } else { zero },
                variance_scale: scales.1,
            };
            let [after, momentum, variance] = R::update(lanes, self.with, of);
            lanes.store(&mut param[group], after);
            momenta[group] = momentum;
            variances[group] = variance;
        }
        *momentum_scale = momentum::encode(lanes, momenta, momentum_codes);
        if R::HAS_VARIANCE {
            *variance_scale = variance::encode(lanes, variances, self.rounding, number, variance_codes);
        }
    }
}
