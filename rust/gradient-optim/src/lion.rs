//! Lion (Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023).
//!
//! With m the momentum as it was coded, g the gradient,
//!
//! ```text
//! g = factor g
//! p = p (1 - lr weight_decay) - lr sign(beta1 m + (1 - beta1) g)
//! m = beta2 m + (1 - beta2) g
//! ```
#![expect(clippy::inline_always, reason = "what is not inlined is compiled for any processor")]

use gradient_codec::quantize::lanes::{LaneKind, Lanes};
use gradient_codec::quantize::variance::Rounding;

use crate::pass::{Keep, Rule, Sixteen, Tiles};
use crate::{Crew, OptimError, Tensor};

/// What a step of Lion is done with.
#[derive(Clone, Copy, Debug)]
pub struct Lion {
    /// Learning rate.
    pub lr: f64,
    /// How much the momentum counts in the direction.
    pub beta1: f64,
    /// How much of the momentum stays.
    pub beta2: f64,
    /// Weight decay.
    pub weight_decay: f64,
    /// What gradients are multiplied by first: 1, -1 to maximize, less to unscale or clip.
    pub grad_factor: f64,
}

impl Lion {
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
        let mut tiles = Tiles::<Step>::new();
        let mut first = 0;
        for (group, tensors) in groups {
            let next = first + tensors.len();
            tiles.add(Step(group.factors()), tensors, first)?;
            first = next;
        }
        tiles.step(kind, crew);
        Ok(())
    }

    fn factors(&self) -> Factors<f32, Keep<f32>> {
        Factors {
            decay: (1.0 - self.lr * self.weight_decay) as f32,
            beta1: self.beta1 as f32,
            new1: (self.grad_factor * (1.0 - self.beta1)) as f32,
            beta2: Keep::new(self.beta2),
            new2: (self.grad_factor * (1.0 - self.beta2)) as f32,
            step: self.lr as f32,
        }
    }
}

/// What is the same for all elements of a step, as numbers or in registers.
#[derive(Clone, Copy)]
struct Factors<F, K> {
    decay: F,
    beta1: F,
    new1: F,
    beta2: K,
    new2: F,
    step: F,
}

#[derive(Clone, Copy)]
struct Step(Factors<f32, Keep<f32>>);

impl Rule for Step {
    const HAS_VARIANCE: bool = false;
    type Registers<L: Lanes> = Factors<L::Floats, Keep<L::Floats>>;

    #[inline(always)]
    fn load<L: Lanes>(self, lanes: L) -> Factors<L::Floats, Keep<L::Floats>> {
        let Self(factors) = self;
        Factors {
            decay: lanes.splat(factors.decay),
            beta1: lanes.splat(factors.beta1),
            new1: lanes.splat(factors.new1),
            beta2: factors.beta2.load(lanes),
            new2: lanes.splat(factors.new2),
            step: lanes.splat(factors.step),
        }
    }

    #[inline(always)]
    fn update<L: Lanes>(lanes: L, with: Factors<L::Floats, Keep<L::Floats>>, of: Sixteen<L>) -> [L::Floats; 3] {
        let kept = lanes.mul(of.momentum, of.momentum_scale);
        let direction = lanes.mul_add(kept, with.beta1, lanes.mul(of.grad, with.new1));
        let one = lanes.at_least_one_where_positive(lanes.abs(direction), lanes.splat(1.0));
        let sign = lanes.with_sign(one, direction);
        // What is no number has no sign, and has to be seen: all else is nothing less itself.
        let sign = lanes.add(sign, lanes.sub(direction, direction));
        let m = of.momentum_with(lanes, with.beta2, lanes.mul(of.grad, with.new2));
        [lanes.mul_from(sign, with.step, lanes.mul(of.param, with.decay)), m, of.variance]
    }

    #[inline(always)]
    fn rounding(self, _key: u32) -> Rounding {
        Rounding::Nearest
    }
}
