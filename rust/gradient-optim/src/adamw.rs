//! Adam and AdamW.
//!
//! With m and v the moments as they were coded, g the gradient, t the number of the step,
//!
//! ```text
//! g = factor g (+ weight_decay p, for Adam)          p = p (1 - lr weight_decay), for AdamW
//! m = beta1 m + (1 - beta1) g                        v = beta2 v + (1 - beta2) g^2
//! p = p - lr / (1 - beta1^t) m / (sqrt(v) / sqrt(1 - beta2^t) + eps)
//! ```
#![expect(clippy::inline_always, reason = "what is not inlined is compiled for any processor")]

use gradient_codec::quantize::lanes::{LaneKind, Lanes};
use gradient_codec::quantize::variance::Rounding;

use crate::pass::{Keep, Rule, Sixteen, Tiles};
use crate::{Crew, OptimError, Tensor};

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
    pub grad_factor: f64,
    /// Number of the step, from 1.
    pub step: u64,
    /// Draw the codes of second moments by lot, with the keys of the tensors.
    pub is_stochastic: bool,
}

impl AdamW {
    /// Does a step on tensors: [`Self::step_groups`] with one group.
    ///
    /// # Errors
    /// As that.
    pub fn step(&self, tensors: Vec<Tensor<'_>>, kind: LaneKind, crew: &Crew) -> Result<(), OptimError> {
        Self::step_groups(vec![(*self, tensors)], kind, crew)
    }

    /// Does a step on groups of tensors.
    ///
    /// # Errors
    /// After one, nothing was written.
    /// - [`OptimError::WrongLength`], [`OptimError::NoRows`]: a part of a tensor has another length than it needs.
    /// - [`OptimError::NoStep`]: the step is 0.
    pub fn step_groups(groups: Vec<(Self, Vec<Tensor<'_>>)>, kind: LaneKind, crew: &Crew) -> Result<(), OptimError> {
        let (mut decoupled_by_lot, mut decoupled) =
            (Tiles::<Step<true, true>>::new(), Tiles::<Step<true, false>>::new());
        let (mut coupled_by_lot, mut coupled) = (Tiles::<Step<false, true>>::new(), Tiles::<Step<false, false>>::new());
        let mut first = 0;
        for (group, tensors) in groups {
            if group.step == 0 {
                return Err(OptimError::NoStep);
            }
            let factors = group.factors();
            let next = first + tensors.len();
            match (group.is_decoupled, group.is_stochastic) {
                (true, true) => decoupled_by_lot.add(Step(factors), tensors, first)?,
                (true, false) => decoupled.add(Step(factors), tensors, first)?,
                (false, true) => coupled_by_lot.add(Step(factors), tensors, first)?,
                (false, false) => coupled.add(Step(factors), tensors, first)?,
            }
            first = next;
        }
        decoupled_by_lot.step(kind, crew);
        decoupled.step(kind, crew);
        coupled_by_lot.step(kind, crew);
        coupled.step(kind, crew);
        Ok(())
    }

    /// Computes what is the same for all elements, in 64 bits, as torch does.
    fn factors(&self) -> Factors<f32, Keep<f32>> {
        #[expect(clippy::cast_precision_loss, reason = "nobody trains for 2^53 steps")]
        let step = self.step as f64;
        // Where nothing is added to the gradient, it is only ever seen times these.
        let factor = if self.is_decoupled { self.grad_factor } else { 1.0 };
        let decay = if self.is_decoupled { 1.0 - self.lr * self.weight_decay } else { self.weight_decay };
        Factors {
            grad: self.grad_factor as f32,
            decay: decay as f32,
            beta1: Keep::new(self.beta1),
            new1: (factor * (1.0 - self.beta1)) as f32,
            beta2: self.beta2 as f32,
            new2: (factor * factor * (1.0 - self.beta2)) as f32,
            root: (1.0 / (1.0 - self.beta2.powf(step)).sqrt()) as f32,
            eps: self.eps as f32,
            step: (self.lr / (1.0 - self.beta1.powf(step))) as f32,
        }
    }
}

/// What is the same for all elements of a step, as numbers or in registers.
#[derive(Clone, Copy)]
struct Factors<F, K> {
    grad: F,
    /// What is left of a parameter (AdamW), or what of it is added to the gradient (Adam).
    decay: F,
    beta1: K,
    new1: F,
    beta2: F,
    new2: F,
    root: F,
    eps: F,
    step: F,
}

/// A step of AdamW, or of Adam.
#[derive(Clone, Copy)]
struct Step<const DECOUPLED: bool, const STOCHASTIC: bool>(Factors<f32, Keep<f32>>);

impl<const DECOUPLED: bool, const STOCHASTIC: bool> Rule for Step<DECOUPLED, STOCHASTIC> {
    const HAS_VARIANCE: bool = true;
    type Registers<L: Lanes> = Factors<L::Floats, Keep<L::Floats>>;

    #[inline(always)]
    fn load<L: Lanes>(self, lanes: L) -> Factors<L::Floats, Keep<L::Floats>> {
        let Self(factors) = self;
        Factors {
            grad: lanes.splat(factors.grad),
            decay: lanes.splat(factors.decay),
            beta1: factors.beta1.load(lanes),
            new1: lanes.splat(factors.new1),
            beta2: lanes.splat(factors.beta2),
            new2: lanes.splat(factors.new2),
            root: lanes.splat(factors.root),
            eps: lanes.splat(factors.eps),
            step: lanes.splat(factors.step),
        }
    }

    #[inline(always)]
    fn update<L: Lanes>(lanes: L, with: Factors<L::Floats, Keep<L::Floats>>, of: Sixteen<L>) -> [L::Floats; 3] {
        let (grad, before) = if DECOUPLED {
            (of.grad, lanes.mul(of.param, with.decay))
        } else {
            (lanes.mul_add(of.param, with.decay, lanes.mul(of.grad, with.grad)), of.param)
        };
        let variance_factor = lanes.mul(of.variance_scale, with.beta2);
        let m = of.momentum_with(lanes, with.beta1, lanes.mul(grad, with.new1));
        let v = lanes.mul_add(of.variance, variance_factor, lanes.mul(lanes.mul(grad, grad), with.new2));
        let divisor = lanes.mul_add(lanes.sqrt(v), with.root, with.eps);
        [lanes.mul_from(lanes.div(m, divisor), with.step, before), m, v]
    }

    #[inline(always)]
    fn rounding(self, key: u32) -> Rounding {
        if STOCHASTIC { Rounding::Stochastic { key } } else { Rounding::Nearest }
    }
}
