//! Each kernel's struct in Rust against its namesake in CUDA: name, type and offset of every field, by the source and by the PTX.

use super::{Arguments, StructLayout};
use crate::device::cuda::conv::ampere::{backward_data, backward_weights, forward};
use crate::device::cuda::conv::{cuda_core, geometry, output_gradient, stem};
use crate::device::cuda::modules::Module;
use crate::device::cuda::{Precision, activation, adam, batch_norm, dense, depthwise, image, loss, memory, pool, rows};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// Every struct that is declared twice.
const LAYOUTS: [StructLayout; 52] = [
    activation::Bounds::LAYOUT,
    activation::Stops::LAYOUT,
    adam::arguments::Adam::LAYOUT,
    adam::arguments::Average::LAYOUT,
    adam::arguments::Restore::LAYOUT,
    adam::arguments::SquaredNorm::LAYOUT,
    backward_data::ConvBackwardData::LAYOUT,
    backward_weights::ConvBackwardWeights::LAYOUT,
    backward_weights::ConvBackwardWeightsSum::LAYOUT,
    batch_norm::arguments::BatchNormApply::LAYOUT,
    batch_norm::arguments::BatchNormBackwardFinalise::LAYOUT,
    batch_norm::arguments::BatchNormBackwardReduce::LAYOUT,
    batch_norm::arguments::BatchNormFinalise::LAYOUT,
    batch_norm::arguments::BatchNormFold::LAYOUT,
    batch_norm::arguments::BatchNormStatistics::LAYOUT,
    batch_norm::arguments::ResidualBackward::LAYOUT,
    batch_norm::arguments::ResidualForward::LAYOUT,
    cuda_core::ConvFfmaBackwardData::LAYOUT,
    cuda_core::ConvFfmaBackwardWeights::LAYOUT,
    cuda_core::ConvFfmaForward::LAYOUT,
    dense::arguments::DenseProduct::LAYOUT,
    dense::arguments::ReluBackward::LAYOUT,
    depthwise::arguments::Columns::LAYOUT,
    depthwise::arguments::DepthwiseBackwardData::LAYOUT,
    depthwise::arguments::DepthwiseBackwardDataScalar::LAYOUT,
    depthwise::arguments::DepthwiseBackwardWeights::LAYOUT,
    depthwise::arguments::DepthwiseBackwardWeightsScalar::LAYOUT,
    depthwise::arguments::DepthwiseForward::LAYOUT,
    depthwise::arguments::DepthwiseForwardScalar::LAYOUT,
    depthwise::arguments::Filter::LAYOUT,
    depthwise::arguments::GradientArguments::LAYOUT,
    depthwise::arguments::InputArguments::LAYOUT,
    depthwise::arguments::InputGradientArguments::LAYOUT,
    depthwise::arguments::OutputArguments::LAYOUT,
    forward::ConvForward::LAYOUT,
    geometry::ConvGeometry::LAYOUT,
    geometry::Divisor::LAYOUT,
    image::ImageForward::LAYOUT,
    loss::arguments::BceForwardBackward::LAYOUT,
    loss::arguments::Sigmoid::LAYOUT,
    memory::Elementwise::LAYOUT,
    output_gradient::ConvBackwardBias::LAYOUT,
    output_gradient::ConvFormGradient::LAYOUT,
    pool::arguments::GlobalAverageBackward::LAYOUT,
    pool::arguments::GlobalMaxBackward::LAYOUT,
    pool::arguments::GlobalPoolForward::LAYOUT,
    pool::arguments::MaxPoolBackward::LAYOUT,
    pool::arguments::MaxPoolWindows::LAYOUT,
    pool::arguments::PoolGeometry::LAYOUT,
    rows::WalkShape::LAYOUT,
    stem::ConvStemBackwardWeights::LAYOUT,
    stem::ConvStemForward::LAYOUT,
];

/// A number in a struct; those of structs inside it have the outer field's name before their own.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Number {
    name: String,
    /// As Rust calls it. Pointers are `u64`.
    kind: String,
    offset: usize,
}

/// Bytes of a number of this type; none if it is a struct.
fn bytes(kind: &str) -> Option<usize> {
    match kind {
        "u64" => Some(8),
        "u32" | "i32" | "f32" => Some(4),
        _ => None,
    }
}

/// The numbers of one field.
fn flatten(name: &str, kind: &str, offset: usize, inside: impl Fn(&str) -> Vec<Number>) -> Vec<Number> {
    if bytes(kind).is_some() {
        return vec![Number { name: name.into(), kind: kind.into(), offset }];
    }
    let inside = inside(kind).into_iter();
    inside
        .map(|number| Number { name: format!("{name}.{}", number.name), offset: offset + number.offset, ..number })
        .collect()
}

fn layout(name: &str) -> StructLayout {
    let found = LAYOUTS.into_iter().find(|layout| layout.name == name);
    found.unwrap_or_else(|| {
        panic!("a kernel takes {name}, which is not among the structs of src/device/cuda listed here")
    })
}

fn in_rust(name: &str) -> Vec<Number> {
    let mut numbers = Vec::new();
    for (name, kind, offset) in layout(name).fields {
        // `[i32; 3]`
        let array = kind.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')?.split_once("; "));
        let (kind, count) = array.map_or((*kind, 1), |(kind, count)| (kind, count.parse().unwrap()));
        for i in 0..count {
            numbers.extend(flatten(name, kind, offset + i * bytes(kind).unwrap_or(0), in_rust));
        }
    }
    numbers
}

/// The files of kernels/, without comments.
fn sources() -> Vec<String> {
    fn walk(folder: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                walk(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "cu" || ending == "cuh") {
                let text = std::fs::read_to_string(&path).unwrap();
                let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
                found.push(code.collect::<Vec<_>>().join("\n"));
            }
        }
    }
    let mut found = Vec::new();
    walk(&Path::new(env!("CARGO_MANIFEST_DIR")).join("kernels"), &mut found);
    found
}

/// The type and the names that a line like `const float *a, *b` or `int order[3], c` declares, and how many of each.
fn declared(statement: &str) -> (&'static str, Vec<(String, usize)>) {
    let mut names = Vec::new();
    for declarator in statement.split(',') {
        let (name, count) = match declarator.trim().split_once('[') {
            Some((name, count)) => (name, count.trim_end_matches(']').parse().unwrap()),
            None => (declarator.trim(), 1),
        };
        names.push((name.rsplit([' ', '*']).next().unwrap().to_owned(), count));
    }
    let first = statement.split_whitespace().find(|word| *word != "const").unwrap();
    let kind = match first {
        _ if statement.contains('*') || statement.contains("long long") => "u64",
        "int" => "i32",
        "unsigned" => "u32",
        "float" => "f32",
        part => layout(part).name,
    };
    (kind, names)
}

/// The numbers of a struct as CUDA C++ declares it, placed by C's rule: each at the next multiple of its alignment.
fn in_cuda(name: &str, sources: &[String]) -> Vec<Number> {
    let head = format!("struct {name} {{");
    let bodies: Vec<&str> =
        sources.iter().filter_map(|source| source.split_once(&head)).map(|(_, body)| body).collect();
    let [body] = bodies[..] else { panic!("kernels/ declares {} structs {name}, not one", bodies.len()) };
    let (mut numbers, mut end) = (Vec::new(), 0);
    let (mut statement, mut depth) = (String::new(), 0);
    for letter in body.chars() {
        match letter {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => {
                // That was the body of a member function.
                depth -= 1;
                statement.clear();
            }
            _ if depth > 0 => {}
            ';' => {
                let (kind, names) = declared(&std::mem::take(&mut statement));
                let (size, align) = match bytes(kind) {
                    Some(bytes) => (bytes, bytes),
                    None => (layout(kind).size, layout(kind).align),
                };
                for (name, count) in names {
                    for _ in 0..count {
                        let offset = usize::next_multiple_of(end, align);
                        end = offset + size;
                        numbers.extend(flatten(&name, kind, offset, |part| in_cuda(part, sources)));
                    }
                }
            }
            _ => statement.push(letter),
        }
    }
    numbers
}

/// The struct that each kernel takes: by the kernel's name, or by what it begins with before a macro's parameters.
fn taken(sources: &[String]) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    for source in sources {
        for (head, rest) in source
            .match_indices("(const __grid_constant__ ")
            .map(|(at, mark)| (&source[..at], &source[at + mark.len()..]))
        {
            let kernel = head.rsplit(|letter: char| letter.is_whitespace()).next().unwrap();
            let kernel = kernel.split("##").next().unwrap();
            found.insert(kernel.to_owned(), rest.split_whitespace().next().unwrap().to_owned());
        }
    }
    found
}

/// Every kernel's PTX, and its name; a family's kernels in each of its precisions.
fn kernels() -> Vec<(&'static str, &'static str)> {
    let mut found = Vec::new();
    let mut files = BTreeSet::new();
    for module in Module::ALL {
        for source in Precision::ALL.map(|precision| module.source(precision)) {
            if files.insert(source.name) {
                let entries = source.ptx.split(".visible .entry ").skip(1);
                found.extend(entries.map(|entry| (entry.split('(').next().unwrap(), entry)));
            }
        }
    }
    found
}

/// The struct that a kernel takes.
fn argument<'a>(kernel: &str, taken: &'a BTreeMap<String, String>) -> &'a str {
    let begins = taken.iter().filter(|(name, _)| name.ends_with('_') && kernel.starts_with(name.as_str()));
    let longest = || begins.max_by_key(|(name, _)| name.len()).map(|(_, argument)| argument);
    taken.get(kernel).or_else(longest).unwrap_or_else(|| panic!("no kernel {kernel} in kernels/"))
}

#[test]
fn rust_declares_what_cuda_declares() {
    let sources = sources();
    for layout in LAYOUTS {
        assert_eq!(in_rust(layout.name), in_cuda(layout.name, &sources), "{} in Rust (left) and CUDA", layout.name);
    }
}

#[test]
fn every_kernel_takes_a_struct_of_the_size_that_rust_gives_it() {
    let taken = taken(&sources());
    for (kernel, ptx) in kernels() {
        let StructLayout { name, size, align, .. } = layout(argument(kernel, &taken));
        let parameter = format!(".param .align {align} .b8 {kernel}_param_0[{size}]\n");
        let found = ptx.lines().nth(1).unwrap_or_default();
        assert_eq!(found.trim(), parameter.trim(), "{kernel}, which takes {name}: PTX (left) and Rust");
    }
}

#[test]
fn every_kernel_reads_its_struct_where_rust_has_numbers_of_that_type() {
    let taken = taken(&sources());
    let mut loads = 0;
    for (kernel, ptx) in kernels() {
        let numbers = in_rust(argument(kernel, &taken));
        // `ld.param.v2.u32 {%r1, %r2}, [NAME_param_0+16];`
        for line in ptx.lines().filter_map(|line| line.trim().strip_prefix("ld.param.")) {
            let Some((_, place)) = line.split_once(&format!("[{kernel}_param_0")) else { continue };
            let place = place.split(']').next().unwrap();
            let offset: usize = if place.is_empty() { 0 } else { place.trim_start_matches('+').parse().unwrap() };
            let (count, rest) = match line.strip_prefix('v') {
                Some(rest) => (rest[..1].parse().unwrap(), &rest[2..]),
                None => (1, line),
            };
            let kind = rest.split_whitespace().next().unwrap();
            for i in 0..count {
                let width = if kind.ends_with("64") { 8 } else { 4 };
                let number = numbers.iter().find(|number| number.offset == offset + i * width);
                let fits = |number: &Number| match kind {
                    "u64" => number.kind == "u64",
                    "f32" => number.kind == "f32",
                    "u32" => number.kind == "i32" || number.kind == "u32",
                    _ => false,
                };
                assert!(number.is_some_and(fits), "{kernel} has `{line}`, and Rust there {number:?}");
                loads += 1;
            }
        }
    }
    assert!(loads > 1000, "{loads}");
}
