//! What has no gradient any more comes to rest, whatever its neighbours in the block do.

#[expect(dead_code, reason = "not every test uses all of it")]
mod support;

use gradient_optim::{AdamW, Crew, LaneKind, Lion, Sgd, Tensor};

use support::{Numbers, Own};

const NUMEL: usize = 64 * 64;

/// Trains with gradients for all, then for every second one; returns how far the others have gone since, at most, and
/// how far one that is trained has, at most.
fn drift(has_variance: bool, num_steps: u64, step: impl Fn(u64, Vec<Tensor<'_>>)) -> (f32, f32) {
    let mut numbers = Numbers(9);
    let mut own = Own::new(64, 64, &mut numbers);
    let mut before = Vec::new();
    for number in 1..=num_steps {
        let mut grad: Vec<f32> = std::iter::repeat_with(|| numbers.bell()).take(NUMEL).collect();
        if number > 20 {
            grad.iter_mut().step_by(2).for_each(|value| *value = 0.0);
        }
        if number == 20 {
            before.clone_from(&own.param);
        }
        step(number, vec![own.tensor(&grad, number as u32, has_variance)]);
    }
    let gone = |first| {
        let pairs = own.param.iter().zip(&before).skip(first).step_by(2);
        pairs.map(|(after, before)| (after - before).abs()).fold(0.0, f32::max)
    };
    assert!(own.momentum.iter().step_by(2).all(|code| *code == 0), "a momentum is left");
    (gone(0), gone(1))
}

#[test]
fn idle_parameters_of_adamw_stop() {
    for (beta2, is_stochastic) in [(0.95, false), (0.999, true)] {
        let (idle, trained) = drift(true, 1500, |step, tensors| {
            let adamw = AdamW {
                lr: 1.0,
                beta1: 0.9,
                beta2,
                eps: 1e-8,
                weight_decay: 0.0,
                is_decoupled: true,
                grad_factor: 1.0,
                step,
                is_stochastic,
            };
            adamw.step(tensors, LaneKind::best(), &Crew::alone()).expect("a step");
        });
        // In full they go as far as some ten steps.
        assert!(idle < 15.0, "{idle}");
        assert!(trained > 20.0, "{trained}");
    }
}

#[test]
fn idle_parameters_of_sgd_stop() {
    let (idle, _) = drift(false, 1500, |step, tensors| {
        let sgd = Sgd {
            lr: 1.0,
            momentum: 0.9,
            dampening: 0.0,
            weight_decay: 0.0,
            is_nesterov: false,
            grad_factor: 1.0,
            is_first: step == 1,
        };
        sgd.step(tensors, LaneKind::best(), &Crew::alone()).expect("a step");
    });
    // In full as far as nine times their momentum, which is some 2.3 gradients, of five at most.
    assert!(idle < 9.0 * 2.3 * 5.0, "{idle}");
}

#[test]
fn idle_parameters_of_lion_stop() {
    let (idle, trained) = drift(false, 1500, |_, tensors| {
        let lion = Lion { lr: 1.0, beta1: 0.9, beta2: 0.99, weight_decay: 0.0, grad_factor: 1.0 };
        lion.step(tensors, LaneKind::best(), &Crew::alone()).expect("a step");
    });
    // In full they would go on for thousands of steps, as long as there is any momentum.
    assert!(idle < 300.0, "{idle}");
    assert!(trained > 20.0, "{trained}");
}
