//! Adam and AdamW with both moments in eight bits.
//!
//! With the moments m and v as they were coded, g the gradient, t the number of the step,
//!
//! ```text
//! g = factor g (+ weight_decay p, for Adam)          p = p (1 - lr weight_decay), for AdamW
//! m = beta1 m + (1 - beta1) g                        v = beta2 v + (1 - beta2) g^2
//! p = p - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
//! ```
//!
//! and m and v are coded again after that: the update never sees what rounding made of them in this step. All of a block
//! stays in registers; memory is read once and written once.
#![expect(clippy::inline_always, reason = "what is not inlined is compiled for any processor")]

use gradient_codec::quantize::lanes::{LaneKind, Lanes, OnLanes, dispatch};
use gradient_codec::quantize::variance::Rounding;
use gradient_codec::quantize::{BLOCK, Blocks, GROUPS, LANES, Part, groups, groups_mut, momentum, variance};
use rayon::prelude::*;

use crate::OptimError;

/// How far ahead of a block memory is asked for, in elements.
const AHEAD: usize = 1024;
/// Elements that one thread takes at a time, about: long enough to be worth handing over, short enough for its cache.
const TILE: usize = 64 << 10;

/// What a step of Adam or AdamW is done with.
#[derive(Clone, Copy, Debug)]
pub struct AdamW {
    /// Learning rate.
    pub lr: f64,
    /// How much of the first moment stays.
    pub beta1: f64,
    /// How much of the second moment stays.
    pub beta2: f64,
    /// What is added to the root of the second moment.
    pub eps: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// AdamW takes the decay from the parameter, Adam adds it to the gradient.
    pub is_decoupled: bool,
    /// What gradients are multiplied by first: 1, -1 to maximize, less to unscale or clip.
    pub grad_factor: f32,
    /// Number of the step, from 1.
    pub step: u64,
    /// Draw the codes of second moments by lot, with the keys of the tensors.
    pub is_stochastic: bool,
}

/// One parameter, its gradient and its state.
#[derive(Debug)]
pub struct AdamWTensor<'a> {
    /// Elements, row after row.
    pub param: &'a mut [f32],
    /// As many.
    pub grad: &'a [f32],
    /// First moments.
    pub momentum: &'a mut [i8],
    /// One for each block.
    pub momentum_scales: &'a mut [f32],
    /// Second moments.
    pub variance: &'a mut [u8],
    /// One for each block.
    pub variance_scales: &'a mut [f32],
    /// Elements of a row: the product of all dimensions but the first.
    pub row_len: usize,
    /// What its lots are drawn with.
    pub key: u32,
}

impl AdamWTensor<'_> {
    /// Returns the blocks, if all parts have the lengths that they need.
    fn blocks(&self, tensor: usize) -> Result<Blocks, OptimError> {
        let numel = self.param.len();
        let Some(blocks) = Blocks::new(numel, self.row_len) else {
            return Err(OptimError::NoRows { tensor, numel, row_len: self.row_len });
        };
        let lens = [
            ("the gradient", numel, self.grad.len()),
            ("the first moment", numel, self.momentum.len()),
            ("the second moment", numel, self.variance.len()),
            ("the scales of the first moment", blocks.num(), self.momentum_scales.len()),
            ("the scales of the second moment", blocks.num(), self.variance_scales.len()),
        ];
        match lens.into_iter().find(|(_, expected, actual)| expected != actual) {
            None => Ok(blocks),
            Some((what, expected, actual)) => Err(OptimError::WrongLength { tensor, what, expected, actual }),
        }
    }
}

impl AdamW {
    /// Does a step on tensors, in parallel on the threads of the rayon pool that calls.
    ///
    /// # Errors
    /// - [`OptimError::WrongLength`], [`OptimError::NoRows`]: a part of a tensor has another length than it needs.
    /// - [`OptimError::NoStep`]: the step is 0.
    pub fn step(&self, tensors: Vec<AdamWTensor<'_>>, kind: LaneKind) -> Result<(), OptimError> {
        if self.step == 0 {
            return Err(OptimError::NoStep);
        }
        let blocks: Vec<Blocks> =
            tensors.iter().enumerate().map(|(number, tensor)| tensor.blocks(number)).collect::<Result<_, _>>()?;
        let tiles: Vec<Tile<'_>> =
            tensors.into_iter().zip(blocks).flat_map(|(tensor, blocks)| tiles_of(tensor, blocks)).collect();
        let step = self.prepared();
        tiles.into_par_iter().with_max_len(1).for_each(|tile| match (self.is_decoupled, self.is_stochastic) {
            (true, false) => dispatch(kind, Step::<true, false>(step, tile)),
            (true, true) => dispatch(kind, Step::<true, true>(step, tile)),
            (false, false) => dispatch(kind, Step::<false, false>(step, tile)),
            (false, true) => dispatch(kind, Step::<false, true>(step, tile)),
        });
        Ok(())
    }

    /// Computes what is the same for all elements, in 64 bits, as torch does.
    fn prepared(&self) -> Prepared {
        #[expect(clippy::cast_precision_loss, reason = "nobody trains for 2^53 steps")]
        let step = self.step as f64;
        let step_size = self.lr / (1.0 - self.beta1.powf(step));
        let root_factor = 1.0 / (1.0 - self.beta2.powf(step)).sqrt();
        Prepared {
            grad_factor: self.grad_factor,
            decay: if self.is_decoupled { 1.0 - self.lr * self.weight_decay } else { self.weight_decay } as f32,
            beta1: self.beta1 as f32,
            new1: (1.0 - self.beta1) as f32,
            beta2: self.beta2 as f32,
            new2: (1.0 - self.beta2) as f32,
            root_factor: root_factor as f32,
            eps: self.eps as f32,
            step_size: step_size as f32,
        }
    }
}

/// What is the same for all elements of a step.
#[derive(Clone, Copy)]
struct Prepared {
    grad_factor: f32,
    /// What is left of a parameter (AdamW), or what of it is added to the gradient (Adam).
    decay: f32,
    beta1: f32,
    new1: f32,
    beta2: f32,
    new2: f32,
    root_factor: f32,
    eps: f32,
    step_size: f32,
}

/// What a thread takes at a time.
struct Tile<'a> {
    param: &'a mut [f32],
    grad: &'a [f32],
    momentum: &'a mut [i8],
    momentum_scales: &'a mut [f32],
    variance: &'a mut [u8],
    variance_scales: &'a mut [f32],
    part: Part,
    key: u32,
}

/// Cuts a tensor into tiles.
fn tiles_of(tensor: AdamWTensor<'_>, blocks: Blocks) -> Vec<Tile<'_>> {
    let AdamWTensor {
        mut param,
        mut grad,
        mut momentum,
        mut momentum_scales,
        mut variance,
        mut variance_scales,
        key,
        row_len: _,
    } = tensor;
    let cut = |part: Part| {
        let (numel, num) = (part.numel(), part.num());
        Some(Tile {
            param: param.split_off_mut(..numel)?,
            grad: grad.split_off(..numel)?,
            momentum: momentum.split_off_mut(..numel)?,
            momentum_scales: momentum_scales.split_off_mut(..num)?,
            variance: variance.split_off_mut(..numel)?,
            variance_scales: variance_scales.split_off_mut(..num)?,
            part,
            key,
        })
    };
    blocks.parts(TILE).map_while(cut).collect()
}

/// A step on a tile.
struct Step<'a, const DECOUPLED: bool, const STOCHASTIC: bool>(Prepared, Tile<'a>);

impl<const DECOUPLED: bool, const STOCHASTIC: bool> OnLanes for Step<'_, DECOUPLED, STOCHASTIC> {
    type Output = ();

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) {
        let Self(prepared, tile) = self;
        let block = Block::<L, DECOUPLED, STOCHASTIC>::new(lanes, prepared, tile.key);
        let Tile { param, grad, momentum, momentum_scales, variance, variance_scales, part, .. } = tile;
        let mut number = part.number();
        let scales = momentum_scales.iter_mut().zip(variance_scales);
        if part.are_whole() {
            let (param, grad) = (param.as_chunks_mut::<BLOCK>().0, grad.as_chunks::<BLOCK>().0);
            let (momentum, variance) = (momentum.as_chunks_mut::<BLOCK>().0, variance.as_chunks_mut::<BLOCK>().0);
            let parts = param.iter_mut().zip(grad).zip(momentum).zip(variance).zip(scales);
            for ((((param, grad), momentum), variance), (momentum_scale, variance_scale)) in parts {
                for line in 0..GROUPS {
                    lanes.prefetch(param, 4 * (AHEAD + LANES * line));
                    lanes.prefetch(grad, 4 * (AHEAD + LANES * line));
                }
                lanes.prefetch(momentum, AHEAD);
                lanes.prefetch(variance, AHEAD);
                block.step(param, grad, momentum, momentum_scale, variance, variance_scale, number);
                number += 1;
            }
            return;
        }
        for (range, (momentum_scale, variance_scale)) in part.ranges().zip(scales) {
            // What is not there is zero and stays so.
            let mut own = Padded::of(
                &param[range.clone()],
                &grad[range.clone()],
                &momentum[range.clone()],
                &variance[range.clone()],
            );
            block.step(
                &mut own.param,
                &own.grad,
                &mut own.momentum,
                momentum_scale,
                &mut own.variance,
                variance_scale,
                number,
            );
            param[range.clone()].copy_from_slice(&own.param[..range.len()]);
            momentum[range.clone()].copy_from_slice(&own.momentum[..range.len()]);
            variance[range.clone()].copy_from_slice(&own.variance[..range.len()]);
            number += 1;
        }
    }
}

/// A block that may be shorter than others, as long as others.
struct Padded {
    param: [f32; BLOCK],
    grad: [f32; BLOCK],
    momentum: [i8; BLOCK],
    variance: [u8; BLOCK],
}

impl Padded {
    #[inline(always)]
    fn of(param: &[f32], grad: &[f32], momentum: &[i8], variance: &[u8]) -> Self {
        let mut own = Self { param: [0.0; BLOCK], grad: [0.0; BLOCK], momentum: [0; BLOCK], variance: [0; BLOCK] };
        own.param[..param.len()].copy_from_slice(param);
        own.grad[..grad.len()].copy_from_slice(grad);
        own.momentum[..momentum.len()].copy_from_slice(momentum);
        own.variance[..variance.len()].copy_from_slice(variance);
        own
    }
}

/// What a block is stepped with, in registers.
struct Block<L: Lanes, const DECOUPLED: bool, const STOCHASTIC: bool> {
    lanes: L,
    grad_factor: L::Floats,
    decay: L::Floats,
    beta1: f32,
    new1: L::Floats,
    beta2: f32,
    new2: L::Floats,
    root_factor: L::Floats,
    eps: L::Floats,
    step_size: L::Floats,
    rounding: Rounding,
}

impl<L: Lanes, const DECOUPLED: bool, const STOCHASTIC: bool> Block<L, DECOUPLED, STOCHASTIC> {
    #[inline(always)]
    fn new(lanes: L, prepared: Prepared, key: u32) -> Self {
        Self {
            lanes,
            grad_factor: lanes.splat(prepared.grad_factor),
            decay: lanes.splat(prepared.decay),
            beta1: prepared.beta1,
            new1: lanes.splat(prepared.new1),
            beta2: prepared.beta2,
            new2: lanes.splat(prepared.new2),
            root_factor: lanes.splat(prepared.root_factor),
            eps: lanes.splat(prepared.eps),
            step_size: lanes.splat(prepared.step_size),
            rounding: if STOCHASTIC { Rounding::Stochastic { key } } else { Rounding::Nearest },
        }
    }

    #[inline(always)]
    #[expect(clippy::too_many_arguments, reason = "all of a block")]
    fn step(
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
        let momentum_factor = lanes.splat(*momentum_scale * self.beta1);
        let variance_factor = lanes.splat(*variance_scale * self.beta2);
        let mut momenta = [lanes.splat(0.0); GROUPS];
        let mut variances = momenta;
        for group in 0..GROUPS {
            let before = lanes.load(&param[group]);
            let grad = lanes.mul(lanes.load(&grad[group]), self.grad_factor);
            let (grad, before) = if DECOUPLED {
                (grad, lanes.mul(before, self.decay))
            } else {
                (lanes.mul_add(before, self.decay, grad), before)
            };
            let kept = momentum::decode(lanes, &momentum_codes[group]);
            let m = lanes.mul_add(kept, momentum_factor, lanes.mul(grad, self.new1));
            let kept = variance::decode(lanes, &variance_codes[group]);
            let v = lanes.mul_add(kept, variance_factor, lanes.mul(lanes.mul(grad, grad), self.new2));
            let divisor = lanes.mul_add(lanes.sqrt(v), self.root_factor, self.eps);
            let update = lanes.div(lanes.mul(m, self.step_size), divisor);
            lanes.store(&mut param[group], lanes.sub(before, update));
            momenta[group] = m;
            variances[group] = v;
        }
        *momentum_scale = momentum::encode(lanes, momenta, momentum_codes);
        *variance_scale = variance::encode(lanes, variances, self.rounding, number, variance_codes);
    }
}
