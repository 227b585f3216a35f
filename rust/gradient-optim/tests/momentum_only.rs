//! Steps of SGD and Lion, which have no second moments: the same bits everywhere, and those of full precision.

mod support;

use gradient_optim::{Crew, LaneKind, Lion, OptimError, Sgd};

use support::{Numbers, Own, same_everywhere};

const SGD: Sgd = Sgd {
    lr: 0.1,
    momentum: 0.9,
    dampening: 0.0,
    weight_decay: 0.01,
    is_nesterov: false,
    grad_factor: 1.0,
    is_first: false,
};

const LION: Lion = Lion { lr: 1e-4, beta1: 0.9, beta2: 0.99, weight_decay: 0.1, grad_factor: 1.0 };

#[test]
fn steps_have_the_same_bits_on_every_processor_and_for_any_number_of_threads() {
    for is_nesterov in [false, true] {
        same_everywhere(false, 3, |number, tensors, kind, crew| {
            Sgd { is_nesterov, dampening: 0.1, is_first: number == 1, ..SGD }.step(tensors, kind, crew)
        });
    }
    same_everywhere(false, 3, |_, tensors, kind, crew| LION.step(tensors, kind, crew));
}

/// Steps twenty times and says how far the parameters are from those of full precision, relatively to how far they went.
fn gap(step: impl Fn(u32, &mut Own, &[f32]), exact: impl Fn(u32, [f64; 3]) -> [f64; 2]) -> f64 {
    let mut numbers = Numbers(7);
    let mut own = Own::new(32, 300, &mut numbers);
    let before: Vec<f64> = own.param.iter().map(|value| f64::from(*value)).collect();
    let mut states: Vec<[f64; 2]> = before.iter().map(|param| [*param, 0.0]).collect();
    for number in 1..=20 {
        let grad: Vec<f32> = std::iter::repeat_with(|| numbers.bell() + 0.5).take(9600).collect();
        step(number, &mut own, &grad);
        for (state, grad) in states.iter_mut().zip(grad) {
            *state = exact(number, [state[0], state[1], f64::from(grad)]);
        }
    }
    let (mut off, mut went) = (0.0, 0.0);
    for ((state, after), before) in states.iter().zip(&own.param).zip(before) {
        off += (f64::from(*after) - state[0]).powi(2);
        went += (state[0] - before).powi(2);
    }
    (off / went).sqrt()
}

#[test]
fn sgd_goes_where_full_precision_goes() {
    for (is_nesterov, dampening, grad_factor, most) in
        [(false, 0.0, 1.0, 0.01), (true, 0.0, 1.0, 0.01), (false, 0.5, 1.0, 0.01), (true, 0.0, -0.5, 0.01)]
    {
        let sgd = Sgd { is_nesterov, dampening, grad_factor, ..SGD };
        let gap = gap(
            |number, own, grad| {
                let sgd = Sgd { is_first: number == 1, ..sgd };
                sgd.step(vec![own.tensor(grad, 0, false)], LaneKind::best(), &Crew::alone()).expect("a step");
            },
            |number, [param, buffer, grad]| {
                let grad = grad_factor * grad + sgd.weight_decay * param;
                let kept = sgd.momentum * buffer + (1.0 - dampening) * grad;
                let buffer = if number == 1 { grad } else { kept };
                let direction = if is_nesterov { grad + sgd.momentum * buffer } else { buffer };
                [param - sgd.lr * direction, buffer]
            },
        );
        assert!(gap < most, "{gap} off with {sgd:?}");
    }
}

#[test]
fn the_first_step_of_sgd_is_that_of_full_precision() {
    let sgd = Sgd { is_first: true, dampening: 0.7, ..SGD };
    let mut numbers = Numbers(8);
    let mut own = Own::new(5, 100, &mut numbers);
    let (before, grad) = (own.param.clone(), numbers.take(500));
    sgd.step(vec![own.tensor(&grad, 0, false)], LaneKind::best(), &Crew::alone()).expect("a step");
    for ((before, grad), after) in before.into_iter().zip(grad).zip(own.param) {
        let direction = f64::from(grad) + sgd.weight_decay * f64::from(before);
        let exact = f64::from(before) - sgd.lr * direction;
        assert!((f64::from(after) - exact).abs() <= 2e-7 * (f64::from(before).abs() + sgd.lr * direction.abs()));
    }
}

#[test]
fn lion_goes_where_full_precision_goes() {
    for grad_factor in [1.0, -0.5] {
        let lion = Lion { grad_factor, ..LION };
        let gap = gap(
            |_, own, grad| {
                lion.step(vec![own.tensor(grad, 0, false)], LaneKind::best(), &Crew::alone()).expect("a step");
            },
            |_, [param, momentum, grad]| {
                let grad = grad_factor * grad;
                let direction = lion.beta1 * momentum + (1.0 - lion.beta1) * grad;
                let sign = if direction == 0.0 { 0.0 } else { direction.signum() };
                let param = param * (1.0 - lion.lr * lion.weight_decay) - lion.lr * sign;
                [param, lion.beta2 * momentum + (1.0 - lion.beta2) * grad]
            },
        );
        // Where a direction is nearly nothing, its sign may be the other one.
        assert!(gap < 0.05, "{gap} off with {lion:?}");
    }
}

#[test]
fn lion_does_not_move_what_has_no_direction_and_shows_what_is_no_number() {
    let lion = Lion { weight_decay: 0.0, ..LION };
    let mut own = Own::new(2, 64, &mut Numbers(9));
    let before = own.param.clone();
    let mut grad = vec![0.0; 128];
    grad[3] = f32::NAN;
    grad[5] = -2.0;
    lion.step(vec![own.tensor(&grad, 0, false)], LaneKind::best(), &Crew::alone()).expect("a step");
    for (i, (before, after)) in before.into_iter().zip(&own.param).enumerate() {
        match i {
            3 => assert!(after.is_nan()),
            5 => assert!((after - before - 1e-4).abs() < 1e-7),
            _ => assert_eq!(before.to_bits(), after.to_bits(), "element {i}"),
        }
    }
}

#[test]
fn second_moments_that_nobody_uses_are_refused() {
    let mut numbers = Numbers(10);
    let mut own = Own::new(4, 64, &mut numbers);
    let (before, grad) = (own.clone(), numbers.take(256));
    let error = SGD.step(vec![own.tensor(&grad, 0, true)], LaneKind::best(), &Crew::alone()).expect_err("it has them");
    assert_eq!(error, OptimError::WrongLength { tensor: 0, what: "the second moment", expected: 0, actual: 256 });
    assert_eq!(own, before);
}
