//! Parameters in 16 bits, moments in full, whole moments as codes: the same numbers as in the one pass over codes.

#[expect(dead_code, reason = "not every test uses all of it")]
mod support;

use gradient_optim::{
    AdamW, Codes, Crew, Fixed, FixedCodes, Floats, LaneKind, Moment, OptimError, Sgd, Tensor, decode_momentum,
    decode_variance, encode_momentum, encode_variance,
};
use half::{bf16, f16};

use support::{Numbers, Own, SHAPES};

const ADAMW: AdamW = AdamW {
    lr: 1e-2,
    beta1: 0.9,
    beta2: 0.999,
    eps: 1e-8,
    weight_decay: 0.1,
    is_decoupled: true,
    grad_factor: 1.0,
    step: 1,
    is_stochastic: true,
};

fn kinds() -> impl Iterator<Item = LaneKind> {
    LaneKind::ALL.into_iter().filter(|kind| kind.is_available())
}

/// Both moments in full, of a tensor whose codes are known.
fn in_full(own: &Own, kind: LaneKind) -> [Vec<f32>; 2] {
    let mut full = [vec![0.0; own.param.len()], vec![0.0; own.param.len()]];
    let momentum = FixedCodes { codes: &own.momentum[..], scales: &own.momentum_scales };
    decode_momentum(momentum, Floats::F32(&mut full[0]), own.row_len, kind, &Crew::alone()).expect("it fits");
    let variance = FixedCodes { codes: &own.variance[..], scales: &own.variance_scales };
    decode_variance(variance, Floats::F32(&mut full[1]), own.row_len, kind, &Crew::alone()).expect("it fits");
    full
}

/// A step on codes gives what decoding, a step in full and coding give.
#[test]
fn a_step_on_codes_is_a_step_in_full_and_its_result_coded() {
    for kind in kinds() {
        let mut numbers = Numbers(5);
        for (rows, row_len) in SHAPES {
            let mut own = Own::new(rows, row_len, &mut numbers);
            for step in 1..=3_u32 {
                let adamw = AdamW { step: step.into(), ..ADAMW };
                let grad = numbers.take(own.param.len());
                let [mut momentum, mut variance] = in_full(&own, kind);
                // Where the gradient is next to nothing codes lose more than what is in full.
                let is_idle: Vec<bool> =
                    momentum.iter().zip(&grad).map(|(moment, grad)| grad.abs() * 7.9 < moment.abs()).collect();
                let mut param = own.param.clone();
                adamw.step(vec![own.tensor(&grad, step, true)], kind, &Crew::alone()).expect("a step");
                let tensor = Tensor {
                    param: Floats::F32(&mut param),
                    grad: Fixed::F32(&grad),
                    momentum: Moment::Floats(Floats::F32(&mut momentum)),
                    variance: Moment::Floats(Floats::F32(&mut variance)),
                    row_len,
                    key: step,
                };
                adamw.step(vec![tensor], kind, &Crew::alone()).expect("a step");
                let mut again = own.clone();
                let codes = Codes { codes: &mut again.momentum[..], scales: &mut again.momentum_scales[..] };
                encode_momentum(Fixed::F32(&momentum), codes, row_len, kind, &Crew::alone()).expect("it fits");
                let codes = Codes { codes: &mut again.variance[..], scales: &mut again.variance_scales[..] };
                encode_variance(Fixed::F32(&variance), codes, row_len, Some(step), kind, &Crew::alone())
                    .expect("it fits");
                // Where the scale is multiplied by the decay first, the last bit may differ.
                let close =
                    |(left, right): (&f32, &f32), slack: f32| (left - right).abs() <= 1e-6 * right.abs() + slack;
                let mut params = own.param.iter().zip(&param).zip(&is_idle);
                assert!(params.all(|(pair, idle)| *idle || close(pair, 1e-8)), "{kind:?}, {rows} x {row_len}, {step}");
                assert!(own.momentum_scales.iter().zip(&again.momentum_scales).all(|pair| close(pair, 0.0)));
                assert!(own.variance_scales.iter().zip(&again.variance_scales).all(|pair| close(pair, 0.0)));
                let codes = own.momentum.iter().zip(&again.momentum).zip(&is_idle);
                let differ = codes.filter(|((left, right), idle)| left != right && !**idle).count();
                assert!(differ * 1000 <= own.momentum.len(), "{differ} of {} codes differ", own.momentum.len());
            }
        }
    }
}

/// Trains a tensor in 16 bits beside one whose values are rounded by hand after each step.
fn follows_full_precision<H: Copy>(
    round: impl Fn(f32) -> H,
    widen: impl Fn(H) -> f32,
    floats: impl Fn(&mut [H]) -> Floats<'_>,
    fixed: impl Fn(&[H]) -> Fixed<'_>,
) {
    for kind in kinds() {
        let mut numbers = Numbers(6);
        for (rows, row_len) in SHAPES {
            let mut own = Own::new(rows, row_len, &mut numbers);
            let mut short: Vec<H> = own.param.iter().map(|value| round(*value)).collect();
            own.param = short.iter().map(|value| widen(*value)).collect();
            let mut other = own.clone();
            for step in 1..=3_u32 {
                let grad: Vec<H> = numbers.take(own.param.len()).into_iter().map(&round).collect();
                let wide: Vec<f32> = grad.iter().map(|value| widen(*value)).collect();
                let adamw = AdamW { step: step.into(), ..ADAMW };
                adamw.step(vec![own.tensor(&wide, step, true)], kind, &Crew::alone()).expect("a step");
                own.param.iter_mut().for_each(|value| *value = widen(round(*value)));
                let mut tensor = other.tensor(&wide, step, true);
                tensor.param = floats(&mut short);
                tensor.grad = fixed(&grad);
                adamw.step(vec![tensor], kind, &Crew::alone()).expect("a step");
                other.param = short.iter().map(|value| widen(*value)).collect();
                assert!(own == other, "{kind:?}, {rows} x {row_len}, step {step}");
            }
        }
    }
}

#[test]
fn parameters_in_16_bits_are_those_of_32_bits_rounded() {
    follows_full_precision(bf16::from_f32, bf16::to_f32, |own| Floats::Bf16(own), |own| Fixed::Bf16(own));
    follows_full_precision(f16::from_f32, f16::to_f32, |own| Floats::F16(own), |own| Fixed::F16(own));
}

#[test]
fn moments_in_16_bits_are_those_of_32_bits_rounded() {
    let sgd = Sgd {
        lr: 0.1,
        momentum: 0.9,
        dampening: 0.0,
        weight_decay: 0.01,
        is_nesterov: true,
        grad_factor: 1.0,
        is_first: false,
    };
    for kind in kinds() {
        let mut numbers = Numbers(7);
        let grad = numbers.take(1000);
        let mut params = [numbers.take(1000), Vec::new()];
        params[1] = params[0].clone();
        let mut short = vec![bf16::ZERO; 1000];
        let mut full = vec![0.0; 1000];
        for _ in 0..3 {
            let [left, right] = &mut params;
            for (param, momentum) in [(left, Floats::Bf16(&mut short)), (right, Floats::F32(&mut full))] {
                let tensor = Tensor {
                    param: Floats::F32(param),
                    grad: Fixed::F32(&grad),
                    momentum: Moment::Floats(momentum),
                    variance: Moment::None,
                    row_len: 100,
                    key: 0,
                };
                sgd.step(vec![tensor], kind, &Crew::alone()).expect("a step");
            }
            for value in &mut full {
                *value = bf16::from_f32(*value).to_f32();
            }
            assert!(params[0] == params[1], "{kind:?}");
        }
        assert!(short.iter().zip(&full).all(|(short, full)| short.to_f32().to_bits() == full.to_bits()));
    }
}

#[test]
fn what_was_decoded_is_coded_the_same_again() {
    for kind in kinds() {
        let mut numbers = Numbers(8);
        for (rows, row_len) in SHAPES {
            let mut own = Own::new(rows, row_len, &mut numbers);
            let grad = numbers.take(own.param.len());
            ADAMW.step(vec![own.tensor(&grad, 1, true)], kind, &Crew::alone()).expect("a step");
            let before = own.clone();
            let [momentum, variance] = in_full(&own, kind);
            let codes = Codes { codes: &mut own.momentum[..], scales: &mut own.momentum_scales[..] };
            encode_momentum(Fixed::F32(&momentum), codes, row_len, kind, &Crew::alone()).expect("it fits");
            for key in [None, Some(9)] {
                let codes = Codes { codes: &mut own.variance[..], scales: &mut own.variance_scales[..] };
                encode_variance(Fixed::F32(&variance), codes, row_len, key, kind, &Crew::alone()).expect("it fits");
                assert!(own == before, "{kind:?}, {rows} x {row_len}, {key:?}");
            }
        }
    }
}

#[test]
fn what_can_not_be_coded_is_refused() {
    let (mut codes, mut scales) = (vec![0_u8; 100], vec![0.0; 2]);
    let mut encode = |values: &[f32], row_len| {
        let codes = Codes { codes: &mut codes[..], scales: &mut scales[..] };
        encode_variance(Fixed::F32(values), codes, row_len, None, LaneKind::best(), &Crew::alone())
    };
    let mut values = vec![1.0; 100];
    assert_eq!(encode(&values, 100), Ok(()));
    assert_eq!(encode(&values, 64), Err(OptimError::NoRows { tensor: 0, numel: 100, row_len: 64 }));
    assert!(matches!(encode(&values[..99], 99), Err(OptimError::WrongLength { what: "the codes", .. })));
    values[99] = -1e-30;
    assert_eq!(encode(&values, 100), Err(OptimError::Negative));
    values[99] = -0.0;
    assert_eq!(encode(&values, 100), Ok(()));
}
