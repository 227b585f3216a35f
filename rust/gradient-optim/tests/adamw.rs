//! Steps of Adam and AdamW: the same bits everywhere, and close to what full precision does.
#![expect(clippy::cast_precision_loss, reason = "small numbers")]

mod support;

use std::collections::HashSet;

use gradient_optim::{AdamW, Crew, LaneKind, OptimError};

use support::{Numbers, Own, same_everywhere};

const ADAMW: AdamW = AdamW {
    lr: 1e-3,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 0.01,
    is_decoupled: true,
    grad_factor: 1.0,
    step: 1,
    is_stochastic: true,
};

#[test]
fn a_step_has_the_same_bits_on_every_processor_and_for_any_number_of_threads() {
    for is_decoupled in [true, false] {
        for is_stochastic in [true, false] {
            let adamw = AdamW { is_decoupled, is_stochastic, ..ADAMW };
            same_everywhere(true, 3, |number, tensors, kind, crew| {
                AdamW { step: number.into(), ..adamw }.step(tensors, kind, crew)
            });
        }
    }
}

/// Adam and AdamW in 64 bits, of one element.
#[derive(Clone, Copy, Default)]
struct Exact {
    m: f64,
    v: f64,
}

impl Exact {
    /// Does a step; returns what is taken from the parameter, the decay of AdamW not counted.
    fn step(&mut self, adamw: &AdamW, param: f64, grad: f64) -> f64 {
        let mut grad = grad * adamw.grad_factor;
        if !adamw.is_decoupled {
            grad += adamw.weight_decay * param;
        }
        self.m = adamw.beta1 * self.m + (1.0 - adamw.beta1) * grad;
        self.v = adamw.beta2 * self.v + (1.0 - adamw.beta2) * grad * grad;
        let step = adamw.step as f64;
        let m = self.m / (1.0 - adamw.beta1.powf(step));
        let v = self.v / (1.0 - adamw.beta2.powf(step));
        adamw.lr * m / (v.sqrt() + adamw.eps)
    }
}

#[test]
fn the_first_step_is_that_of_full_precision() {
    for (is_decoupled, grad_factor) in [(true, 1.0), (false, 1.0), (true, -0.25)] {
        let adamw = AdamW { is_decoupled, grad_factor, ..ADAMW };
        let mut numbers = Numbers(2);
        let mut own = Own::new(16, 200, &mut numbers);
        let (before, grad) = (own.param.clone(), numbers.take(3200));
        adamw.step(vec![own.tensor(&grad, 1, true)], LaneKind::best(), &Crew::alone()).expect("a step");
        for ((before, grad), after) in before.into_iter().zip(grad).zip(own.param) {
            let before = f64::from(before);
            let update = Exact::default().step(&adamw, before, f64::from(grad));
            let kept = if is_decoupled { before * (1.0 - adamw.lr * adamw.weight_decay) } else { before };
            let off = (f64::from(after) - (kept - update)).abs();
            assert!(off <= 1.5e-7 * before.abs() + 1e-6 * update.abs(), "{before} with {grad}: {off} off");
        }
    }
}

/// Says how far updates are off, relatively, over the last 100 of many steps. Gradients of each element are noise of its
/// own size, which is log-normal with `sigma`; from step `falls_at` on those of every other element are a tenth.
fn update_error(beta2: f64, is_stochastic: bool, sigma: f32, num_steps: u32, falls_at: u32) -> f64 {
    const NUMEL: usize = 16_384;
    let mut numbers = Numbers(3);
    let mut own = Own::new(64, NUMEL / 64, &mut numbers);
    let sizes: Vec<f32> = std::iter::repeat_with(|| 0.01 * (sigma * numbers.bell()).exp()).take(NUMEL).collect();
    let mut exact = vec![Exact::default(); NUMEL];
    let (mut error, mut norm) = (0.0, 0.0);
    for step in 1..=num_steps {
        let fallen = if step >= falls_at { 0.1 } else { 1.0 };
        let factors = [fallen, 1.0].into_iter().cycle();
        let grad: Vec<f32> = sizes.iter().zip(factors).map(|(size, factor)| size * factor * numbers.bell()).collect();
        own.param.fill(0.0);
        let adamw = AdamW { beta2, is_stochastic, weight_decay: 0.0, step: step.into(), ..ADAMW };
        adamw.step(vec![own.tensor(&grad, step, true)], LaneKind::best(), &Crew::alone()).expect("a step");
        for ((exact, grad), after) in exact.iter_mut().zip(grad).zip(&own.param) {
            let update = exact.step(&adamw, 0.0, f64::from(grad));
            if step + 100 > num_steps {
                error += (f64::from(-after) - update).powi(2);
                norm += update * update;
            }
        }
    }
    (error / norm).sqrt()
}

#[test]
fn updates_stay_close_to_those_of_full_precision() {
    let (slow, fast) = (update_error(0.999, true, 0.5, 500, u32::MAX), update_error(0.95, false, 0.5, 300, u32::MAX));
    println!("{:.2} and {:.2} % off", 100.0 * slow, 100.0 * fast);
    assert!(slow < 0.08 && fast < 0.06, "{slow} {fast}");
}

#[test]
fn second_moments_follow_gradients_that_fall() {
    let by_lot = update_error(0.999, true, 0.5, 1500, 500);
    let nearest = update_error(0.999, false, 0.5, 1500, 500);
    println!("{:.2} % off by lot, {:.2} to the nearest", 100.0 * by_lot, 100.0 * nearest);
    assert!(by_lot < 0.12, "{by_lot}");
    assert!(nearest > 2.0 * by_lot, "{nearest} where nothing is drawn");
}

#[test]
fn what_has_never_had_a_gradient_is_not_moved() {
    let adamw = AdamW { weight_decay: 0.0, ..ADAMW };
    let mut numbers = Numbers(4);
    let mut own = Own::new(8, 100, &mut numbers);
    let before = own.param.clone();
    for step in 1..=50 {
        // Every third element, and all of the last row, never have one.
        let mut grad = numbers.take(800);
        grad.iter_mut().step_by(3).for_each(|grad| *grad = 0.0);
        grad[700..].fill(0.0);
        let adamw = AdamW { step, ..adamw };
        adamw.step(vec![own.tensor(&grad, step as u32, true)], LaneKind::best(), &Crew::alone()).expect("a step");
    }
    for (i, (before, after)) in before.into_iter().zip(own.param).enumerate() {
        assert_eq!(before.to_bits() == after.to_bits(), i % 3 == 0 || i >= 700, "element {i}");
    }
}

#[test]
fn another_key_draws_other_lots() {
    let states = [1, 1, 2].map(|key| {
        let mut numbers = Numbers(5);
        let mut own = Own::new(8, 256, &mut numbers);
        let grad = numbers.take(2048);
        ADAMW.step(vec![own.tensor(&grad, key, true)], LaneKind::best(), &Crew::alone()).expect("a step");
        own.variance
    });
    assert_eq!(states[0], states[1]);
    assert_ne!(states[0], states[2]);
}

#[test]
fn every_block_draws_lots_of_its_own() {
    // Several tiles, of whole blocks and of rows with short ends.
    for (rows, row_len) in [(40, 4096), (1500, 100)] {
        let mut numbers = Numbers(5);
        let block = numbers.take(64);
        let grad: Vec<f32> = (0..rows * row_len).map(|i| block[i % row_len % 64]).collect();
        let mut own = Own::new(rows, row_len, &mut numbers);
        ADAMW.step(vec![own.tensor(&grad, 1, true)], LaneKind::best(), &Crew::alone()).expect("a step");
        let whole: Vec<&[u8]> = own.variance.chunks(row_len).flat_map(|row| row.chunks_exact(64)).collect();
        let distinct: HashSet<&[u8]> = whole.iter().copied().collect();
        assert_eq!(distinct.len(), whole.len());
    }
}

#[test]
fn parts_that_do_not_belong_together_are_refused_and_nothing_is_written() {
    let mut numbers = Numbers(6);
    let mut good = Own::new(4, 64, &mut numbers);
    let before = good.clone();
    let grad = numbers.take(256);
    let refused = |mut own: Own, grad: &[f32], good: &mut Own, whole: &[f32]| {
        let tensors = vec![good.tensor(whole, 0, true), own.tensor(grad, 0, true)];
        ADAMW.step(tensors, LaneKind::best(), &Crew::alone()).expect_err("it is refused")
    };
    let wrong = |what, expected, actual| OptimError::WrongLength { tensor: 1, what, expected, actual };
    assert_eq!(refused(before.clone(), &grad[1..], &mut good, &grad), wrong("the gradient", 256, 255));
    let own = Own { momentum: vec![0; 257], ..before.clone() };
    assert_eq!(refused(own, &grad, &mut good, &grad), wrong("the first moment", 256, 257));
    let own = Own { variance: Vec::new(), ..before.clone() };
    assert_eq!(refused(own, &grad, &mut good, &grad), wrong("the second moment", 256, 0));
    let own = Own { momentum_scales: vec![0.0; 5], ..before.clone() };
    assert_eq!(refused(own, &grad, &mut good, &grad), wrong("the scales of the first moment", 4, 5));
    let own = Own { variance_scales: vec![0.0; 3], ..before.clone() };
    assert_eq!(refused(own, &grad, &mut good, &grad), wrong("the scales of the second moment", 4, 3));
    let own = Own { row_len: 100, ..before.clone() };
    let error = OptimError::NoRows { tensor: 1, numel: 256, row_len: 100 };
    assert_eq!(refused(own, &grad, &mut good, &grad), error);
    assert_eq!(
        AdamW { step: 0, ..ADAMW }.step(vec![good.tensor(&grad, 0, true)], LaneKind::best(), &Crew::alone()),
        Err(OptimError::NoStep)
    );
    assert_eq!(good, before);
}
