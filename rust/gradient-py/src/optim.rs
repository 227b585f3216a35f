//! Steps of optimizers on coded state, and whole moments as codes and back.

use std::sync::Arc;

use bytemuck::Pod;
use gradient_optim::{
    AdamW, Codes, Crew, Fixed, FixedCodes, Floats, LaneKind, Lion, Moment, OptimError, Rounding, Sgd, Tensor,
    decode_momentum, decode_variance, encode_momentum, encode_variance,
};
use half::{bf16, f16};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;

use crate::buffer::{Kept, Regions, Slice};
use crate::errors::raise;
use crate::openmp::OpenMp;

/// The width of floats in memory.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Width {
    F32,
    Bf16,
    F16,
}

impl Width {
    fn of(dtype: &str) -> PyResult<Self> {
        match dtype {
            "float32" => Ok(Self::F32),
            "bfloat16" => Ok(Self::Bf16),
            "float16" => Ok(Self::F16),
            other => Err(PyValueError::new_err(format!("{other} is neither float32 nor bfloat16 nor float16"))),
        }
    }
}

/// A moment, as Python gives it: codes and scales, or floats and their dtype.
#[derive(FromPyObject)]
enum Given<'py> {
    Floats(Bound<'py, PyAny>, String),
    Codes(Bound<'py, PyAny>, Bound<'py, PyAny>),
}

/// A moment, held.
enum Held {
    None,
    Codes { codes: Kept, scales: Kept },
    Floats(Kept, Width),
}

impl Held {
    fn new(given: Option<Given<'_>>) -> PyResult<Self> {
        Ok(match given {
            None => Self::None,
            Some(Given::Codes(codes, scales)) => Self::Codes { codes: Kept::new(codes)?, scales: Kept::new(scales)? },
            Some(Given::Floats(floats, dtype)) => Self::Floats(Kept::new(floats)?, Width::of(&dtype)?),
        })
    }

    fn push<'py>(&self, py: Python<'py>, regions: &mut Regions<'py>) -> PyResult<()> {
        match self {
            Self::None => Ok(()),
            Self::Codes { codes, scales } => {
                regions.push_kept(py, codes)?;
                regions.push_kept(py, scales)
            }
            Self::Floats(floats, _) => regions.push_kept(py, floats),
        }
    }

    fn moment<'s, C: Pod>(&self, slices: &mut impl Iterator<Item = Slice<'s>>) -> PyResult<Moment<'s, C>> {
        Ok(match self {
            Self::None => Moment::None,
            Self::Codes { .. } => Moment::Codes(codes(slices)?),
            Self::Floats(_, width) => Moment::Floats(floats(slices, *width)?),
        })
    }

    fn nbytes(&self) -> usize {
        match self {
            Self::None => 0,
            Self::Codes { codes, scales } => codes.len() + scales.len(),
            Self::Floats(floats, _) => floats.len(),
        }
    }
}

/// The moments of one parameter: memory of tensors, held.
#[pyclass(frozen, module = "gradient._core")]
pub struct Moments {
    momentum: Held,
    variance: Held,
    width: Width,
    row_len: usize,
    seed: u64,
}

#[pymethods]
impl Moments {
    #[new]
    #[pyo3(signature = (dtype, momentum, variance=None, *, row_len, seed=0))]
    fn new(dtype: &str, momentum: Given<'_>, variance: Option<Given<'_>>, row_len: usize, seed: u64) -> PyResult<Self> {
        let (momentum, variance) = (Held::new(Some(momentum))?, Held::new(variance)?);
        Ok(Self { momentum, variance, width: Width::of(dtype)?, row_len, seed })
    }

    #[getter]
    fn nbytes(&self) -> usize {
        self.momentum.nbytes() + self.variance.nbytes()
    }
}

/// A tensor to step: its moments, the parameter, the gradient.
type Entry<'py> = (Py<Moments>, Bound<'py, PyAny>, Bound<'py, PyAny>);

/// Does a step of AdamW or Adam on groups of tensors.
#[pyfunction]
#[pyo3(signature = (groups, *, threads, capability))]
pub(crate) fn step_adamw(
    py: Python<'_>,
    groups: Vec<(AdamWSettings, Vec<Entry<'_>>)>,
    threads: usize,
    capability: &str,
) -> PyResult<()> {
    let rules = |settings: &AdamWSettings| {
        let &(lr, beta1, beta2, eps, weight_decay, is_decoupled, grad_factor, step, is_stochastic) = settings;
        AdamW { lr, beta1, beta2, eps, weight_decay, is_decoupled, grad_factor, step, is_stochastic }
    };
    let step_of = |rule: &AdamW| rule.step;
    step(py, &groups, threads, capability, rules, step_of, AdamW::step_groups)
}

/// `lr, beta1, beta2, eps, weight_decay, is_decoupled, grad_factor, step, is_stochastic`.
type AdamWSettings = (f64, f64, f64, f64, f64, bool, f64, u64, bool);

/// Does a step of SGD with momentum on groups of tensors.
#[pyfunction]
#[pyo3(signature = (groups, *, threads, capability))]
pub(crate) fn step_sgd(
    py: Python<'_>,
    groups: Vec<(SgdSettings, Vec<Entry<'_>>)>,
    threads: usize,
    capability: &str,
) -> PyResult<()> {
    let rules = |settings: &SgdSettings| {
        let &(lr, momentum, dampening, weight_decay, is_nesterov, grad_factor, is_first) = settings;
        Sgd { lr, momentum, dampening, weight_decay, is_nesterov, grad_factor, is_first }
    };
    step(py, &groups, threads, capability, rules, |_| 0, Sgd::step_groups)
}

/// `lr, momentum, dampening, weight_decay, is_nesterov, grad_factor, is_first`.
type SgdSettings = (f64, f64, f64, f64, bool, f64, bool);

/// Does a step of Lion on groups of tensors.
#[pyfunction]
#[pyo3(signature = (groups, *, threads, capability))]
pub(crate) fn step_lion(
    py: Python<'_>,
    groups: Vec<(LionSettings, Vec<Entry<'_>>)>,
    threads: usize,
    capability: &str,
) -> PyResult<()> {
    let rules = |settings: &LionSettings| {
        let &(lr, beta1, beta2, weight_decay, grad_factor) = settings;
        Lion { lr, beta1, beta2, weight_decay, grad_factor }
    };
    step(py, &groups, threads, capability, rules, |_| 0, Lion::step_groups)
}

/// `lr, beta1, beta2, weight_decay, grad_factor`.
type LionSettings = (f64, f64, f64, f64, f64);

/// Collects the memory of all tensors, then steps them without the interpreter.
fn step<S, R: Send + Sync>(
    py: Python<'_>,
    groups: &[(S, Vec<Entry<'_>>)],
    threads: usize,
    capability: &str,
    rules: impl Fn(&S) -> R,
    step_of: impl Fn(&R) -> u64,
    work: impl FnOnce(Vec<(R, Vec<Tensor<'_>>)>, LaneKind, &Crew) -> Result<(), OptimError> + Send,
) -> PyResult<()> {
    let kind = lanes(capability)?;
    let mut regions = Regions::default();
    for (moments, param, grad) in groups.iter().flat_map(|(_, entries)| entries) {
        regions.push_tensor(param.as_borrowed(), true)?;
        regions.push_tensor(grad.as_borrowed(), false)?;
        moments.get().momentum.push(py, &mut regions)?;
        moments.get().variance.push(py, &mut regions)?;
    }
    let mut slices = regions.slices(py)?.into_iter();
    let mut stepped = Vec::with_capacity(groups.len());
    for (settings, entries) in groups {
        let rule = rules(settings);
        let number = step_of(&rule);
        let mut tensors = Vec::with_capacity(entries.len());
        for (moments, _, _) in entries {
            let moments = moments.get();
            tensors.push(Tensor {
                param: floats(&mut slices, moments.width)?,
                grad: fixed(&mut slices, moments.width)?,
                momentum: moments.momentum.moment(&mut slices)?,
                variance: moments.variance.moment(&mut slices)?,
                row_len: moments.row_len,
                key: Rounding::key(moments.seed, number),
            });
        }
        stepped.push((rule, tensors));
    }
    with_crew(py, threads, |crew| work(stepped, kind, crew))
}

/// Codes a moment: `signed-sqrt` or `fourth-root`.
#[pyfunction]
#[pyo3(signature = (name, dtype, values, codes, scales, *, row_len, stochastic=None, threads, capability))]
#[expect(clippy::too_many_arguments, reason = "all of a tensor")]
pub(crate) fn encode_moment(
    name: &str,
    dtype: &str,
    values: Bound<'_, PyAny>,
    codes: Bound<'_, PyAny>,
    scales: Bound<'_, PyAny>,
    row_len: usize,
    stochastic: Option<(u64, u64)>,
    threads: usize,
    capability: &str,
) -> PyResult<()> {
    let (py, kind, width) = (values.py(), lanes(capability)?, Width::of(dtype)?);
    let mut regions = Regions::default();
    regions.push_tensor(values.as_borrowed(), false)?;
    regions.push_tensor(codes.as_borrowed(), true)?;
    regions.push_tensor(scales.as_borrowed(), true)?;
    let mut slices = regions.slices(py)?.into_iter();
    let values = fixed(&mut slices, width)?;
    match name {
        "signed-sqrt" => {
            let codes = self::codes(&mut slices)?;
            with_crew(py, threads, |crew| encode_momentum(values, codes, row_len, kind, crew))
        }
        "fourth-root" => {
            let codes = self::codes(&mut slices)?;
            let key = stochastic.map(|(seed, draws)| Rounding::key(seed, draws));
            with_crew(py, threads, |crew| encode_variance(values, codes, row_len, key, kind, crew))
        }
        other => Err(PyValueError::new_err(format!("there are no codes called {other}"))),
    }
}

/// Gives a moment back.
#[pyfunction]
#[pyo3(signature = (name, dtype, codes, scales, values, *, row_len, threads, capability))]
#[expect(clippy::too_many_arguments, reason = "all of a tensor")]
pub(crate) fn decode_moment(
    name: &str,
    dtype: &str,
    codes: Bound<'_, PyAny>,
    scales: Bound<'_, PyAny>,
    values: Bound<'_, PyAny>,
    row_len: usize,
    threads: usize,
    capability: &str,
) -> PyResult<()> {
    let (py, kind, width) = (values.py(), lanes(capability)?, Width::of(dtype)?);
    let mut regions = Regions::default();
    regions.push_tensor(codes.as_borrowed(), false)?;
    regions.push_tensor(scales.as_borrowed(), false)?;
    regions.push_tensor(values.as_borrowed(), true)?;
    let mut slices = regions.slices(py)?.into_iter();
    match name {
        "signed-sqrt" => {
            let codes = FixedCodes { codes: cast(&mut slices)?, scales: cast(&mut slices)? };
            let values = floats(&mut slices, width)?;
            with_crew(py, threads, |crew| decode_momentum(codes, values, row_len, kind, crew))
        }
        "fourth-root" => {
            let codes = FixedCodes { codes: cast(&mut slices)?, scales: cast(&mut slices)? };
            let values = floats(&mut slices, width)?;
            with_crew(py, threads, |crew| decode_variance(codes, values, row_len, kind, crew))
        }
        other => Err(PyValueError::new_err(format!("there are no codes called {other}"))),
    }
}

/// The instruction sets that this processor has and the kernels know, the fastest first.
#[pyfunction]
pub(crate) fn cpu_capabilities() -> Vec<&'static str> {
    LaneKind::ALL.into_iter().filter(|kind| kind.is_available()).map(name_of).collect()
}

fn name_of(kind: LaneKind) -> &'static str {
    match kind {
        LaneKind::Avx512 => "avx512",
        LaneKind::Avx2 => "avx2",
        LaneKind::Plain => "default",
    }
}

fn lanes(capability: &str) -> PyResult<LaneKind> {
    let found = LaneKind::ALL.into_iter().find(|kind| name_of(*kind) == capability && kind.is_available());
    found.ok_or_else(|| PyValueError::new_err(format!("this processor has no {capability}")))
}

const SHORT: &str = "memory is missing or of another kind";

fn cast<'s, T: Pod>(slices: &mut impl Iterator<Item = Slice<'s>>) -> PyResult<&'s [T]> {
    match slices.next() {
        Some(Slice::Read(bytes)) => bytemuck::try_cast_slice(bytes).map_err(|_| PyValueError::new_err(SHORT)),
        _ => Err(PyValueError::new_err(SHORT)),
    }
}

fn cast_mut<'s, T: Pod>(slices: &mut impl Iterator<Item = Slice<'s>>) -> PyResult<&'s mut [T]> {
    match slices.next() {
        Some(Slice::Write(bytes)) => bytemuck::try_cast_slice_mut(bytes).map_err(|_| PyValueError::new_err(SHORT)),
        _ => Err(PyValueError::new_err(SHORT)),
    }
}

fn codes<'s, C: Pod>(slices: &mut impl Iterator<Item = Slice<'s>>) -> PyResult<Codes<'s, C>> {
    Ok(Codes { codes: cast_mut(slices)?, scales: cast_mut(slices)? })
}

fn floats<'s>(slices: &mut impl Iterator<Item = Slice<'s>>, width: Width) -> PyResult<Floats<'s>> {
    Ok(match width {
        Width::F32 => Floats::F32(cast_mut(slices)?),
        Width::Bf16 => Floats::Bf16(cast_mut::<bf16>(slices)?),
        Width::F16 => Floats::F16(cast_mut::<f16>(slices)?),
    })
}

fn fixed<'s>(slices: &mut impl Iterator<Item = Slice<'s>>, width: Width) -> PyResult<Fixed<'s>> {
    Ok(match width {
        Width::F32 => Fixed::F32(cast(slices)?),
        Width::Bf16 => Fixed::Bf16(cast::<bf16>(slices)?),
        Width::F16 => Fixed::F16(cast::<f16>(slices)?),
    })
}

/// Runs `work` without the interpreter, on so many threads.
fn with_crew(
    py: Python<'_>,
    num_threads: usize,
    work: impl FnOnce(&Crew) -> Result<(), OptimError> + Send,
) -> PyResult<()> {
    let crew = match OpenMp::here() {
        Some(team) => Arc::new(Crew::of(team, num_threads)),
        None => Crew::shared(num_threads).map_err(|error| PyValueError::new_err(format!("no threads: {error}")))?,
    };
    py.detach(|| work(&crew)).map_err(|error| {
        let facts = pyo3::types::PyDict::new(py);
        raise(py, "InvalidInputError", &error.to_string(), &facts)
    })
}
