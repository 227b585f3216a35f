//! Parameters with their state, and numbers to train them with.
#![expect(clippy::cast_precision_loss, reason = "small numbers")]

use gradient_optim::{Blocks, Codes, Crew, Fixed, Floats, LaneKind, Moment, OptimError, Tensor};

/// Rows and their length: whole blocks, many tiles, short ends, rows that are shorter than a block.
pub(crate) const SHAPES: [(usize, usize); 7] =
    [(4, 128), (70, 4096), (33, 100), (3, 70_001), (1000, 9), (1, 5), (300, 64)];

/// A parameter and its state.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Own {
    pub(crate) row_len: usize,
    pub(crate) param: Vec<f32>,
    pub(crate) momentum: Vec<i8>,
    pub(crate) momentum_scales: Vec<f32>,
    pub(crate) variance: Vec<u8>,
    pub(crate) variance_scales: Vec<f32>,
}

impl Own {
    pub(crate) fn new(rows: usize, row_len: usize, numbers: &mut Numbers) -> Self {
        let numel = rows * row_len;
        let num_scales = Blocks::new(numel, row_len).expect("whole rows").num();
        Self {
            row_len,
            param: numbers.take(numel),
            momentum: vec![0; numel],
            momentum_scales: vec![0.0; num_scales],
            variance: vec![0; numel],
            variance_scales: vec![0.0; num_scales],
        }
    }

    /// What a step takes; with second moments or without.
    pub(crate) fn tensor<'a>(&'a mut self, grad: &'a [f32], key: u32, has_variance: bool) -> Tensor<'a> {
        let variance = Codes { codes: &mut self.variance[..], scales: &mut self.variance_scales[..] };
        Tensor {
            param: Floats::F32(&mut self.param),
            grad: Fixed::F32(grad),
            momentum: Moment::Codes(Codes { codes: &mut self.momentum, scales: &mut self.momentum_scales }),
            variance: if has_variance { Moment::Codes(variance) } else { Moment::None },
            row_len: self.row_len,
            key,
        }
    }
}

/// Numbers without a pattern, the same ones in every run.
pub(crate) struct Numbers(pub(crate) u64);

impl Numbers {
    pub(crate) fn uniform(&mut self) -> f32 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 40) as f32 / (1 << 24) as f32
    }

    /// One of a bell-shaped distribution, of standard deviation 1.
    pub(crate) fn bell(&mut self) -> f32 {
        (0..12).map(|_| self.uniform()).sum::<f32>() - 6.0
    }

    /// Numbers of many magnitudes and both signs.
    pub(crate) fn take(&mut self, num: usize) -> Vec<f32> {
        std::iter::repeat_with(|| self.bell() * 10_f32.powf(-4.0 * self.uniform())).take(num).collect()
    }
}

/// Does steps on tensors of all shapes, on every kind of lanes and with 1, 2 and 8 threads, and wants the same bits of
/// each; returns what became of them.
pub(crate) fn same_everywhere(
    has_variance: bool,
    num_steps: u32,
    step: impl Fn(u32, Vec<Tensor<'_>>, LaneKind, &Crew) -> Result<(), OptimError> + Sync,
) -> Vec<Own> {
    let steps = |kind, threads| {
        let mut numbers = Numbers(1);
        let mut all: Vec<Own> = SHAPES.iter().map(|(rows, row_len)| Own::new(*rows, *row_len, &mut numbers)).collect();
        let crew = Crew::new(threads).expect("threads");
        for number in 1..=num_steps {
            let grads: Vec<Vec<f32>> = all.iter().map(|own| numbers.take(own.param.len())).collect();
            let tensors = all.iter_mut().zip(&grads).zip(0..);
            let tensors =
                tensors.map(|((own, grad), key)| own.tensor(grad, 1000 * number + key, has_variance)).collect();
            step(number, tensors, kind, &crew).expect("all is as long as it should be");
        }
        all
    };
    let plain = steps(LaneKind::Plain, 1);
    assert!(plain.iter().all(|own| own.param.iter().all(|value| value.is_finite())));
    for kind in LaneKind::ALL.into_iter().filter(|kind| kind.is_available()) {
        for threads in [1, 2, 8] {
            assert!(steps(kind, threads) == plain, "{kind:?}, {threads} threads");
        }
    }
    plain
}
