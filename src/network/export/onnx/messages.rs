//! ONNX's messages, under the numbers that their fields have in `onnx.proto`: <https://github.com/onnx/onnx/blob/main/onnx/onnx.proto>.

use crate::protobuf::Message;

/// The version of the format itself: that of ONNX 1.12, from June 2022.
const IR_VERSION: i64 = 8;

/// The version of the operators, of the same ONNX.
const OPSET: i64 = 17;

/// Who wrote the file.
const PRODUCER: &str = "onesheet";

/// What the elements of a tensor are: `TensorProto.DataType`.
#[derive(Clone, Copy)]
pub(super) enum Element {
    F32 = 1,
    U8 = 2,
    I64 = 7,
}

/// An extent of an input or an output.
pub(super) enum Extent<'a> {
    /// Always the same.
    Fixed(usize),
    /// Another one each time, under this name.
    Free(&'a str),
}

/// An attribute of a node.
pub(super) enum Attribute<'a> {
    Integer(i64),
    Float(f32),
    Integers(&'a [i64]),
}

/// `NodeProto`: an operator, what it reads and what it leaves. It has the name of what it leaves.
pub(super) fn node(operator: &str, inputs: &[&str], output: &str, attributes: &[(&str, Attribute<'_>)]) -> Message {
    let mut node = Message::default();
    for input in inputs {
        node.text(1, input);
    }
    node.text(2, output).text(3, output).text(4, operator);
    for (name, value) in attributes {
        node.message(5, &attribute(name, value));
    }
    node
}

/// `AttributeProto`.
fn attribute(name: &str, value: &Attribute<'_>) -> Message {
    let mut attribute = Message::default();
    attribute.text(1, name);
    match value {
        Attribute::Float(value) => attribute.float(2, *value).integer(20, 1),
        Attribute::Integer(value) => attribute.integer(3, *value).integer(20, 2),
        Attribute::Integers(values) => {
            for &value in *values {
                attribute.integer(8, value);
            }
            attribute.integer(20, 7)
        }
    };
    attribute
}

/// `TensorProto` up to its values, so many `bytes`, which belong behind it.
pub(super) fn tensor(name: &str, element: Element, shape: &[usize], bytes: usize) -> Message {
    let mut tensor = Message::default();
    for &extent in shape {
        tensor.integer(1, extent as i64);
    }
    tensor.integer(2, element as i64).text(8, name).announce(9, bytes);
    tensor
}

/// `ValueInfoProto`: an input or an output, and what somebody should know of it.
pub(super) fn value(name: &str, element: Element, shape: &[Extent<'_>], about: &str) -> Message {
    let mut extents = Message::default();
    for extent in shape {
        let mut dimension = Message::default();
        match extent {
            Extent::Fixed(extent) => dimension.integer(1, *extent as i64),
            Extent::Free(name) => dimension.text(2, name),
        };
        extents.message(1, &dimension);
    }
    let mut tensor = Message::default();
    tensor.integer(1, element as i64).message(2, &extents);
    let mut kind = Message::default();
    kind.message(1, &tensor);
    let mut value = Message::default();
    value.text(1, name).message(2, &kind).text(3, about);
    value
}

/// `ModelProto` up to its graph, so many `bytes`, which belongs behind it.
pub(super) fn model(about: &str, metadata: &[(String, String)], graph: usize) -> Message {
    let mut operators = Message::default();
    operators.text(1, "").integer(2, OPSET);
    let mut model = Message::default();
    model
        .integer(1, IR_VERSION)
        .text(2, PRODUCER)
        .text(3, env!("CARGO_PKG_VERSION"))
        .text(6, about)
        .message(8, &operators);
    for (key, value) in metadata {
        let mut entry = Message::default();
        entry.text(1, key).text(2, value);
        model.message(14, &entry);
    }
    model.announce(7, graph);
    model
}
