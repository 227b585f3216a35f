//! SGD with momentum.
//!
//! With m the momentum as it was coded, g the gradient,
//!
//! ```text
//! g = factor g + weight_decay p
//! m = momentum m + (1 - dampening) g                 m = g, in the first step
//! p = p - lr m                                       p = p - lr (g + momentum m), for Nesterov
//! ```
#![expect(clippy::inline_always, reason = "what is not inlined is compiled for any processor")]

use gradient_codec::quantize::lanes::{LaneKind, Lanes};
use gradient_codec::quantize::variance::Rounding;

use crate::pass::{Keep, Rule, Sixteen, Tiles};
use crate::{Crew, OptimError, Tensor};

/// What a step of SGD with momentum is done with.
#[derive(Clone, Copy, Debug)]
pub struct Sgd {
    /// Learning rate.
    pub lr: f64,
    /// How much of the momentum stays.
    pub momentum: f64,
    /// How much of the gradient does not come to the momentum.
    pub dampening: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// Looks a step ahead.
    pub is_nesterov: bool,
    /// What gradients are multiplied by first: 1, -1 to maximize, less to unscale or clip.
    pub grad_factor: f64,
    /// There is no momentum yet: it becomes the gradient, whatever the dampening.
    pub is_first: bool,
}

impl Sgd {
    /// Does a step on tensors: [`Self::step_groups`] with one group.
    ///
    /// # Errors
    /// As that.
    pub fn step(&self, tensors: Vec<Tensor<'_>>, kind: LaneKind, crew: &Crew) -> Result<(), OptimError> {
        Self::step_groups(vec![(*self, tensors)], kind, crew)
    }

    /// Does a step on groups of tensors, which have no second moments.
    ///
    /// # Errors
    /// [`OptimError::WrongLength`], [`OptimError::NoRows`]: a part of a tensor has another length than it needs; nothing
    /// was written.
    pub fn step_groups(groups: Vec<(Self, Vec<Tensor<'_>>)>, kind: LaneKind, crew: &Crew) -> Result<(), OptimError> {
        let (mut nesterov, mut plain) = (Tiles::<Step<true>>::new(), Tiles::<Step<false>>::new());
        let mut first = 0;
        for (group, tensors) in groups {
            let next = first + tensors.len();
            if group.is_nesterov {
                nesterov.add(Step(group.factors()), tensors, first)?;
            } else {
                plain.add(Step(group.factors()), tensors, first)?;
            }
            first = next;
        }
        nesterov.step(kind, crew);
        plain.step(kind, crew);
        Ok(())
    }

    fn factors(&self) -> Factors<f32, Keep<f32>> {
        Factors {
            grad: self.grad_factor as f32,
            decay: self.weight_decay as f32,
            kept: Keep::new(if self.is_first { 0.0 } else { self.momentum }),
            new: if self.is_first { 1.0 } else { (1.0 - self.dampening) as f32 },
            ahead: self.momentum as f32,
            step: self.lr as f32,
        }
    }
}

/// What is the same for all elements of a step, as numbers or in registers.
#[derive(Clone, Copy)]
struct Factors<F, K> {
    grad: F,
    decay: F,
    kept: K,
    new: F,
    ahead: F,
    step: F,
}

/// A step, Nesterov's or not.
#[derive(Clone, Copy)]
struct Step<const NESTEROV: bool>(Factors<f32, Keep<f32>>);

impl<const NESTEROV: bool> Rule for Step<NESTEROV> {
    const HAS_VARIANCE: bool = false;
    type Registers<L: Lanes> = Factors<L::Floats, Keep<L::Floats>>;

    #[inline(always)]
    fn load<L: Lanes>(self, lanes: L) -> Factors<L::Floats, Keep<L::Floats>> {
        let Self(factors) = self;
        Factors {
            grad: lanes.splat(factors.grad),
            decay: lanes.splat(factors.decay),
            kept: factors.kept.load(lanes),
            new: lanes.splat(factors.new),
            ahead: lanes.splat(factors.ahead),
            step: lanes.splat(factors.step),
        }
    }

    #[inline(always)]
    fn update<L: Lanes>(lanes: L, with: Factors<L::Floats, Keep<L::Floats>>, of: Sixteen<L>) -> [L::Floats; 3] {
        let grad = lanes.mul_add(of.param, with.decay, lanes.mul(of.grad, with.grad));
        let m = of.momentum_with(lanes, with.kept, lanes.mul(grad, with.new));
        let direction = if NESTEROV { lanes.mul_add(m, with.ahead, grad) } else { m };
        [lanes.mul_from(direction, with.step, of.param), m, of.variance]
    }

    #[inline(always)]
    fn rounding(self, _key: u32) -> Rounding {
        Rounding::Nearest
    }
}
