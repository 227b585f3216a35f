//! Blocks in eight bits: what comes back, and the same bits on every kind of lanes.
#![expect(clippy::inline_always, reason = "what is not inlined is compiled for any processor")]
#![expect(clippy::float_cmp, reason = "what comes back exactly")]
#![expect(clippy::cast_precision_loss, reason = "small numbers")]

use gradient_codec::quantize::lanes::{LaneKind, Lanes, OnLanes, dispatch};
use gradient_codec::quantize::variance::Rounding;
use gradient_codec::quantize::{BLOCK, GROUPS, groups, groups_mut, momentum, variance};
use proptest::prelude::*;

type Values = [f32; BLOCK];

struct EncodeMomentum<'a>(&'a Values);

impl OnLanes for EncodeMomentum<'_> {
    type Output = ([i8; BLOCK], f32);

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) -> Self::Output {
        let mut codes = [0; BLOCK];
        let values = groups(self.0);
        let values: [_; GROUPS] = std::array::from_fn(|i| lanes.load(&values[i]));
        let scale = momentum::encode(lanes, values, groups_mut(&mut codes));
        (codes, scale)
    }
}

struct DecodeMomentum<'a>(&'a [i8; BLOCK], f32);

impl OnLanes for DecodeMomentum<'_> {
    type Output = Values;

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) -> Values {
        let mut values = [0.0; BLOCK];
        for (codes, to) in groups(self.0).iter().zip(groups_mut(&mut values)) {
            lanes.store(to, lanes.mul(momentum::decode(lanes, codes), lanes.splat(self.1)));
        }
        values
    }
}

struct EncodeVariance<'a>(&'a Values, Rounding, u64);

impl OnLanes for EncodeVariance<'_> {
    type Output = ([u8; BLOCK], f32);

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) -> Self::Output {
        let mut codes = [0; BLOCK];
        let values = groups(self.0);
        let values: [_; GROUPS] = std::array::from_fn(|i| lanes.load(&values[i]));
        let scale = variance::encode(lanes, values, self.1, self.2, groups_mut(&mut codes));
        (codes, scale)
    }
}

struct DecodeVariance<'a>(&'a [u8; BLOCK], f32);

impl OnLanes for DecodeVariance<'_> {
    type Output = Values;

    #[inline(always)]
    fn on<L: Lanes>(self, lanes: L) -> Values {
        let mut values = [0.0; BLOCK];
        for (codes, to) in groups(self.0).iter().zip(groups_mut(&mut values)) {
            lanes.store(to, lanes.mul(variance::decode(lanes, codes), lanes.splat(self.1)));
        }
        values
    }
}

/// Does it on every kind of lanes that this processor has, and wants the same bits of each.
fn on_all<O: PartialEq + std::fmt::Debug>(what: impl Fn(LaneKind) -> O) -> O {
    let plain = what(LaneKind::Plain);
    for kind in LaneKind::ALL.into_iter().filter(|kind| kind.is_available()) {
        assert_eq!(what(kind), plain, "{kind:?}");
    }
    plain
}

fn bits(values: Values) -> [u32; BLOCK] {
    // Of NaNs only is promised that they are some.
    values.map(|value| if value.is_nan() { f32::NAN.to_bits() } else { value.to_bits() })
}

fn scale_bits(scale: f32) -> u32 {
    if scale.is_nan() { f32::NAN.to_bits() } else { scale.to_bits() }
}

/// Codes and scale, and what they stand for.
fn through_momentum(values: &Values) -> ([i8; BLOCK], f32, Values) {
    let (codes, scale) = on_all(|kind| {
        let (codes, scale) = dispatch(kind, EncodeMomentum(values));
        (codes, scale_bits(scale))
    });
    let scale = f32::from_bits(scale);
    let back = on_all(|kind| bits(dispatch(kind, DecodeMomentum(&codes, scale))));
    (codes, scale, back.map(f32::from_bits))
}

fn through_variance(values: &Values, rounding: Rounding, block: u64) -> ([u8; BLOCK], f32, Values) {
    let (codes, scale) = on_all(|kind| {
        let (codes, scale) = dispatch(kind, EncodeVariance(values, rounding, block));
        (codes, scale_bits(scale))
    });
    let scale = f32::from_bits(scale);
    let back = on_all(|kind| bits(dispatch(kind, DecodeVariance(&codes, scale))));
    (codes, scale, back.map(f32::from_bits))
}

/// Any float at all.
fn any_bits() -> impl Strategy<Value = Values> {
    prop::collection::vec(any::<u32>(), BLOCK).prop_map(|bits| std::array::from_fn(|i| f32::from_bits(bits[i])))
}

/// Numbers around a power of ten, some of them far below it, some zero.
fn around() -> impl Strategy<Value = Values> {
    let one =
        prop_oneof![8 => (0.0_f32..1.0, -3.0_f32..0.0), 1 => (0.0_f32..1.0, -12.0_f32..0.0), 1 => Just((0.0, 0.0))];
    (prop::collection::vec((one, any::<bool>()), BLOCK), -33.0_f32..38.0).prop_map(|(parts, exponent)| {
        std::array::from_fn(|i| {
            let ((part, below), is_negative) = parts[i];
            let value = part * 10_f32.powf(exponent + below);
            if is_negative { -value } else { value }
        })
    })
}

fn largest_abs(values: &Values) -> f32 {
    values.iter().fold(0.0, |largest, value| value.abs().max(largest))
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn any_block_is_coded_to_the_same_bits_on_all_lanes(values in any_bits(), key: u32, block: u64) {
        through_momentum(&values);
        // What processors make of nothing is a NaN with a sign.
        let positive = values.map(|value| if value.is_nan() { value } else { value.abs() });
        through_variance(&positive, Rounding::Nearest, 0);
        through_variance(&positive, Rounding::Stochastic { key }, block);
    }

    #[test]
    fn a_momentum_comes_back_to_half_a_code(values in around()) {
        let (codes, scale, back) = through_momentum(&values);
        let largest = largest_abs(&values);
        prop_assert_eq!(scale, largest);
        for ((value, code), back) in values.into_iter().zip(codes).zip(back) {
            prop_assert_eq!(value == 0.0, value == 0.0 && code == 0);
            prop_assert!(back == 0.0 || back.is_sign_negative() == value.is_sign_negative());
            if value.abs() == largest {
                prop_assert_eq!(back, value);
            }
            // Halfway to the codes beside it, as roots, and what rounding of floats adds.
            let root = |x: f32| 127.0 * f64::from(x.abs() / largest).sqrt();
            prop_assert!((root(value) - f64::from(code.unsigned_abs())).abs() <= 0.5001, "{value} became {code} of {scale}");
        }
        let again = through_momentum(&back);
        prop_assert_eq!((again.0, again.1), (codes, scale));
    }

    #[test]
    fn a_variance_comes_back_to_half_a_code_and_is_zero_only_for_zero(values in around()) {
        let values = values.map(f32::abs);
        let (codes, scale, back) = through_variance(&values, Rounding::Nearest, 0);
        let largest = largest_abs(&values);
        prop_assume!(largest > 1e-27);
        prop_assert_eq!(scale, largest);
        for ((value, code), back) in values.into_iter().zip(codes).zip(back) {
            prop_assert_eq!(code == 0, value == 0.0);
            if value == largest {
                prop_assert_eq!(back, value);
            }
            let root = 255.0 * f64::from(value / largest).sqrt().sqrt();
            prop_assert!(code == 1 || (root - f64::from(code)).abs() <= 0.5001, "{value} became {code} of {scale}");
        }
        let again = through_variance(&back, Rounding::Nearest, 0);
        prop_assert_eq!((again.0, again.1), (codes, scale));
    }

    #[test]
    fn what_lies_on_a_code_is_never_moved_by_lot(values in around(), key: u32, block: u64) {
        let (codes, scale, back) = through_variance(&values.map(f32::abs), Rounding::Nearest, 0);
        prop_assume!(scale > 1e-27);
        let (again, scale_again, _) = through_variance(&back, Rounding::Stochastic { key }, block);
        // But for what rounding of floats makes of it: a lot below a millionth.
        let moved = again.iter().zip(codes).filter(|(again, code)| **again != *code).count();
        prop_assert!(moved <= 1, "{moved} codes moved");
        prop_assert_eq!(scale_again, scale);
    }

    #[test]
    fn a_lot_takes_one_of_the_two_codes_beside_a_number(values in around(), key: u32, block: u64) {
        let values = values.map(f32::abs);
        let largest = largest_abs(&values);
        prop_assume!(largest > 1e-27);
        let (codes, ..) = through_variance(&values, Rounding::Stochastic { key }, block);
        for (value, code) in values.into_iter().zip(codes) {
            let root = 255.0 * f64::from(value / largest).sqrt().sqrt();
            prop_assert_eq!(code == 0, value == 0.0);
            prop_assert!(code <= 1 || (root - f64::from(code)).abs() < 1.0001, "{value} became {code}");
        }
    }

    #[test]
    fn larger_numbers_never_have_smaller_codes(values in around()) {
        let mut values = values;
        values.sort_by(f32::total_cmp);
        let (codes, ..) = through_momentum(&values);
        prop_assert!(codes.is_sorted());
        let mut values = values.map(f32::abs);
        values.sort_by(f32::total_cmp);
        let (codes, ..) = through_variance(&values, Rounding::Nearest, 0);
        prop_assert!(codes.is_sorted());
    }
}

#[test]
fn a_block_of_zeros_is_zeros() {
    for zero in [0.0_f32, -0.0] {
        assert_eq!(through_momentum(&[zero; BLOCK]), ([0; BLOCK], 0.0, [0.0; BLOCK]));
        let rounding = Rounding::Stochastic { key: 1 };
        assert_eq!(through_variance(&[zero.abs(); BLOCK], rounding, 7), ([0; BLOCK], 0.0, [0.0; BLOCK]));
    }
}

#[test]
fn what_is_too_small_to_matter_is_coded_without_harm() {
    for value in [f32::from_bits(1), 1e-40, f32::MIN_POSITIVE, 1e-36] {
        let (_, scale, back) = through_momentum(&[value; BLOCK]);
        assert!(scale > 0.0 && back.iter().all(|back| (back - value).abs() <= scale), "{value}");
        let (codes, scale, back) = through_variance(&[value; BLOCK], Rounding::Stochastic { key: 1 }, 0);
        assert!(codes.iter().all(|code| *code > 0), "{value}");
        assert!(back.iter().all(|back| *back > 0.0 && *back <= scale), "{value}");
    }
}

#[test]
fn what_is_no_number_makes_its_block_none() {
    for bad in [f32::NAN, -f32::NAN, f32::INFINITY] {
        let mut values = [1.0; BLOCK];
        values[17] = bad;
        let (_, scale, back) = through_momentum(&values);
        assert!(!scale.is_finite() && back.iter().all(|back| !back.is_finite()));
        let (_, scale, back) = through_variance(&values, Rounding::Nearest, 0);
        assert!(!scale.is_finite() && back.iter().all(|back| !back.is_finite()));
    }
}

#[test]
fn lots_are_right_on_average() {
    const KEYS: u32 = 200;
    const BLOCKS: u64 = 200;
    // Numbers at all places between codes, low and high ones; 40,000 lots each.
    let values: Values = std::array::from_fn(|i| if i == 0 { 1.0 } else { ((4.0 + 3.9 * i as f32) / 255.0).powi(4) });
    let mut sums = [0.0_f64; BLOCK];
    let mut squares = [0.0_f64; BLOCK];
    for key in 0..KEYS {
        for block in 0..BLOCKS {
            let kind = LaneKind::best();
            let rounding = Rounding::Stochastic { key: key.wrapping_mul(0x9e37_79b9) };
            let (codes, scale) = dispatch(kind, EncodeVariance(&values, rounding, block));
            for (i, back) in dispatch(kind, DecodeVariance(&codes, scale)).into_iter().enumerate() {
                sums[i] += f64::from(back);
                squares[i] += f64::from(back) * f64::from(back);
            }
        }
    }
    let num = f64::from(KEYS) * BLOCKS as f64;
    for (i, value) in values.into_iter().enumerate() {
        let mean = sums[i] / num;
        let deviation = (squares[i] / num - mean * mean).max(0.0).sqrt() / num.sqrt();
        let off = mean - f64::from(value);
        assert!(off.abs() <= 4.5 * deviation + 1e-6 * f64::from(value), "{value}: {off} off, {deviation} expected");
    }
}

#[test]
fn lots_of_neighbours_have_nothing_to_do_with_each_other() {
    const BLOCKS: u64 = 20_000;
    // All alike, halfway: a code is up or down as a coin falls.
    let mut values = [((100.5_f32) / 255.0).powi(4); BLOCK];
    values[0] = 1.0;
    let mut alike = vec![[0_u32; BLOCK]; BLOCK];
    for block in 0..BLOCKS {
        let rounding = Rounding::Stochastic { key: 7 };
        let (codes, _) = dispatch(LaneKind::best(), EncodeVariance(&values, rounding, block));
        for (i, alike) in alike.iter_mut().enumerate() {
            for (j, alike) in alike.iter_mut().enumerate().take(i).skip(1) {
                *alike += u32::from(codes[i] == codes[j]);
            }
        }
    }
    // Two words share eight of sixteen bits at most, the high ones of one with the low ones of the other.
    let half = BLOCKS as f64 / 2.0;
    let deviation = half.sqrt() / 2.0_f64.sqrt();
    for (i, alike) in alike.iter().enumerate() {
        for (j, alike) in alike.iter().enumerate().take(i).skip(1) {
            let off = (f64::from(*alike) - half) / deviation;
            assert!(off.abs() < 5.5, "{i} and {j}: {off} deviations");
        }
    }
}

/// Blocks of all scales, each of numbers with random digits and as far below its largest as codes reach, or further.
fn blocks_of_all_scales(num: usize, mut what: impl FnMut(&Values)) {
    let mut state = 1_u64;
    let mut random = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as u32
    };
    for number in 0..num {
        // Exponents of the largest from 2^-92 to 2^127.
        let top = 35 + (number % 220) as u32;
        what(&std::array::from_fn(|i| {
            let below = if i == 0 { 0 } else { random() % if number % 2 == 0 { 8 } else { 40 } };
            f32::from_bits(((top.saturating_sub(below)) << 23) | (random() & 0x7f_ffff))
        }));
    }
}

/// Says which whole number is nearest, at an edge the smaller one; none where rounding of floats could decide.
fn nearest(root: f64) -> Option<f64> {
    let edge = root.floor() + 0.5;
    ((root - edge).abs() > 4e-7 * root).then(|| if root > edge { root.ceil() } else { root.floor() })
}

#[test]
fn codes_are_those_of_exact_arithmetic_on_all_lanes() {
    let (mut num, mut num_undecided) = (0, 0);
    blocks_of_all_scales(30_000, |values| {
        let signed: Values = std::array::from_fn(|i| if i % 3 == 0 { -values[i] } else { values[i] });
        let (momenta, momentum_scale, _) = through_momentum(&signed);
        let (variances, variance_scale, _) = through_variance(values, Rounding::Nearest, 0);
        let (lots, ..) = through_variance(values, Rounding::Stochastic { key: 1 }, num);
        let largest = largest_abs(values);
        assert_eq!((momentum_scale, variance_scale), (largest, largest));
        for (i, value) in values.iter().enumerate() {
            let part = f64::from(*value) / f64::from(largest);
            let (root, fourth_root) = (127.0 * part.sqrt(), 255.0 * part.sqrt().sqrt());
            let sign = if i % 3 == 0 { -1.0 } else { 1.0 };
            num += 1;
            match nearest(root) {
                Some(code) => assert_eq!(f64::from(momenta[i]), sign * code, "{value} of {largest}"),
                None => num_undecided += 1,
            }
            match nearest(fourth_root) {
                Some(code) => assert_eq!(f64::from(variances[i]), code.max(1.0), "{value} of {largest}"),
                None => num_undecided += 1,
            }
            let lot = f64::from(lots[i]);
            assert!(lot == 1.0 || (lot - fourth_root).abs() < 1.000_01, "{value} of {largest} became {lot}");
        }
    });
    assert!(num > 1_900_000 && num_undecided < 1000, "{num_undecided} of {num}");
}

#[test]
fn numbers_at_and_beside_edges_have_the_code_of_exact_arithmetic() {
    // The largest is such that its square root, or fourth root, is the whole number of its code.
    for code in 0..127_u32 {
        let edge = (code as f32 + 0.5).powi(2);
        let values: Values = std::array::from_fn(|i| match i {
            0 => 127.0 * 127.0,
            i => f32::from_bits(edge.to_bits() + i as u32 - 32),
        });
        let (codes, ..) = through_momentum(&values);
        for (i, value) in values.iter().enumerate().skip(1) {
            assert_eq!(u32::from(codes[i].unsigned_abs()), code + u32::from(*value > edge), "{value} at {edge}");
        }
    }
    for code in 0..255_u32 {
        let edge = (f64::from(code) + 0.5).powi(4);
        let values: Values = std::array::from_fn(|i| match i {
            0 => 255.0_f32.powi(4),
            i => f32::from_bits((edge as f32).to_bits() + i as u32 - 32),
        });
        let (codes, ..) = through_variance(&values, Rounding::Nearest, 0);
        for (i, value) in values.iter().enumerate().skip(1) {
            let expected = code + u32::from(f64::from(*value) > edge);
            assert_eq!(u32::from(codes[i]), expected.max(1), "{value} at {edge}");
        }
    }
}

#[test]
fn special_numbers_are_coded_alike_on_all_lanes() {
    let special = [0.0, -0.0, f32::from_bits(1), 1e-40, f32::MIN_POSITIVE, 1.0, f32::MAX, f32::INFINITY, f32::NAN];
    for first in special {
        for second in special {
            for sign in [1.0, -1.0] {
                let values: Values = std::array::from_fn(|i| [sign * first, second, 0.0, 1e-3][i % 4]);
                let (codes, scale, _) = through_momentum(&values);
                for (value, code) in values.into_iter().zip(codes) {
                    assert!(value != 0.0 || code == 0, "{value} of {scale} became {code}");
                }
                let values = values.map(|value| if value.is_nan() { value } else { value.abs() });
                for rounding in [Rounding::Nearest, Rounding::Stochastic { key: 1 }] {
                    let (codes, scale, _) = through_variance(&values, rounding, 0);
                    for (value, code) in values.into_iter().zip(codes) {
                        assert!(
                            !scale.is_finite() || (value == 0.0) == (code == 0),
                            "{value} of {scale} became {code}"
                        );
                    }
                }
            }
        }
    }
}
