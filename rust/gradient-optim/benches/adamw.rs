//! How fast a step of AdamW on eight-bit state is: `cargo bench -p gradient-optim --bench adamw [millions [threads]]`.

use std::time::Instant;

use gradient_optim::{AdamW, Blocks, Codes, Crew, Fixed, Floats, LaneKind, Moment, Tensor};

const ROW_LEN: usize = 4096;
const NUM_SAMPLES: usize = 15;

#[expect(clippy::cast_precision_loss, reason = "nobody measures 2^52 parameters")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut args = std::env::args().skip(1).filter(|arg| !arg.starts_with('-'));
    let millions: usize = args.next().map_or(Ok(17), |arg| arg.parse())?;
    let threads: usize = args.next().map_or(Ok(2), |arg| arg.parse())?;
    let numel = (millions * 1_000_000).next_multiple_of(ROW_LEN);
    let crew = Crew::new(threads)?;
    let mut seed = 1_u32;
    let grad: Vec<f32> = std::iter::repeat_with(|| {
        seed = seed.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        f32::from((seed >> 16) as u16) / 65_536.0 - 0.5
    })
    .take(numel)
    .collect();
    let num_scales = Blocks::new(numel, ROW_LEN).ok_or("no whole rows")?.num();
    for kind in [LaneKind::Avx512, LaneKind::Avx2].into_iter().filter(|kind| kind.is_available()) {
        for (beta2, is_stochastic) in [(0.95, false), (0.999, true)] {
            let mut param = vec![0.01; numel];
            let (mut momentum, mut variance) = (vec![0; numel], vec![0; numel]);
            let (mut momentum_scales, mut variance_scales) = (vec![0.0; num_scales], vec![0.0; num_scales]);
            let mut seconds = Vec::new();
            for step in 1..=NUM_SAMPLES as u64 {
                let adamw = AdamW {
                    lr: 1e-3,
                    beta1: 0.9,
                    beta2,
                    eps: 1e-8,
                    weight_decay: 0.01,
                    is_decoupled: true,
                    grad_factor: 1.0,
                    step,
                    is_stochastic,
                };
                let tensor = Tensor {
                    param: Floats::F32(&mut param),
                    grad: Fixed::F32(&grad),
                    momentum: Moment::Codes(Codes { codes: &mut momentum, scales: &mut momentum_scales }),
                    variance: Moment::Codes(Codes { codes: &mut variance, scales: &mut variance_scales }),
                    row_len: ROW_LEN,
                    key: step as u32,
                };
                let start = Instant::now();
                adamw.step(vec![tensor], kind, &crew)?;
                seconds.push(start.elapsed().as_secs_f64());
            }
            seconds.sort_by(f64::total_cmp);
            let median = seconds[seconds.len() / 2];
            println!(
                "{kind:?}, beta2 {beta2}, {numel} parameters, {threads} threads: median {:.2} ms, {:.3} ns a parameter",
                median * 1e3,
                median * 1e9 / numel as f64,
            );
        }
    }
    Ok(())
}
