//! ONNX's messages as they are read, under the numbers of `onnx.proto`. A field that is none of those is a mistake.

use std::collections::BTreeMap;

/// A field's value as it lies in the file.
enum Field<'a> {
    Integer(i64),
    Float(f32),
    Bytes(&'a [u8]),
}

impl<'a> Field<'a> {
    fn integer(&self) -> i64 {
        let Field::Integer(value) = *self else { panic!("it is no integer") };
        value
    }

    fn bytes(&self) -> &'a [u8] {
        let Field::Bytes(value) = *self else { panic!("it is no bytes") };
        value
    }

    fn text(&self) -> String {
        String::from_utf8(self.bytes().to_vec()).unwrap()
    }
}

/// Takes seven bits of each byte, the last ones first, until one has no mark.
fn varint(bytes: &mut &[u8]) -> u64 {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = bytes.split_first().expect("a number ends");
        *bytes = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return value;
        }
    }
    panic!("a number has ten bytes at most")
}

/// Hands the fields of a message to `take`, by their numbers.
fn read<'a>(mut bytes: &'a [u8], mut take: impl FnMut(u64, Field<'a>)) {
    while !bytes.is_empty() {
        let tag = varint(&mut bytes);
        let field = match tag & 7 {
            0 => Field::Integer(varint(&mut bytes) as i64),
            2 => {
                let length = varint(&mut bytes) as usize;
                let (value, rest) = bytes.split_at(length);
                bytes = rest;
                Field::Bytes(value)
            }
            5 => {
                let (value, rest) = bytes.split_first_chunk().unwrap();
                bytes = rest;
                Field::Float(f32::from_le_bytes(*value))
            }
            other => panic!("nothing is written as {other}"),
        };
        take(tag >> 3, field);
    }
}

#[derive(Debug, Default)]
pub struct Model {
    pub ir_version: i64,
    pub producer: [String; 2],
    pub about: String,
    pub graph: Graph,
    /// Sets of operators and their versions.
    pub operators: BTreeMap<String, i64>,
    pub metadata: BTreeMap<String, String>,
}

#[derive(Debug, Default)]
pub struct Graph {
    pub nodes: Vec<Node>,
    pub name: String,
    pub tensors: Vec<Tensor>,
    pub inputs: Vec<ValueInfo>,
    pub outputs: Vec<ValueInfo>,
}

#[derive(Debug, Default)]
pub struct Node {
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
    pub name: String,
    pub operator: String,
    pub integers: BTreeMap<String, i64>,
    pub floats: BTreeMap<String, f32>,
    pub lists: BTreeMap<String, Vec<i64>>,
}

#[derive(Debug, Default)]
pub struct Tensor {
    pub shape: Vec<usize>,
    /// `TensorProto.DataType`.
    pub element: i64,
    pub name: String,
    pub values: Vec<u8>,
}

#[derive(Debug, Default, PartialEq)]
pub struct ValueInfo {
    pub name: String,
    pub element: i64,
    /// A number, or the name of one that is free.
    pub shape: Vec<String>,
    pub about: String,
}

impl Model {
    pub fn read(bytes: &[u8]) -> Model {
        let mut model = Model::default();
        read(bytes, |number, field| match number {
            1 => model.ir_version = field.integer(),
            2 => model.producer[0] = field.text(),
            3 => model.producer[1] = field.text(),
            6 => model.about = field.text(),
            7 => model.graph = Graph::read(field.bytes()),
            8 => {
                let mut set = (String::new(), 0);
                read(field.bytes(), |number, field| match number {
                    1 => set.0 = field.text(),
                    2 => set.1 = field.integer(),
                    other => panic!("a set of operators has no field {other}"),
                });
                model.operators.insert(set.0, set.1);
            }
            14 => {
                let mut entry = (String::new(), String::new());
                read(field.bytes(), |number, field| match number {
                    1 => entry.0 = field.text(),
                    2 => entry.1 = field.text(),
                    other => panic!("an entry has no field {other}"),
                });
                assert!(model.metadata.insert(entry.0, entry.1).is_none(), "an entry is there twice");
            }
            other => panic!("a model has no field {other}"),
        });
        model
    }
}

impl Graph {
    fn read(bytes: &[u8]) -> Graph {
        let mut graph = Graph::default();
        read(bytes, |number, field| match number {
            1 => graph.nodes.push(Node::read(field.bytes())),
            2 => graph.name = field.text(),
            5 => graph.tensors.push(Tensor::read(field.bytes())),
            11 => graph.inputs.push(ValueInfo::read(field.bytes())),
            12 => graph.outputs.push(ValueInfo::read(field.bytes())),
            other => panic!("a graph has no field {other}"),
        });
        graph
    }
}

impl Node {
    fn read(bytes: &[u8]) -> Node {
        let mut node = Node::default();
        read(bytes, |number, field| match number {
            1 => node.inputs.push(field.text()),
            2 => node.outputs.push(field.text()),
            3 => node.name = field.text(),
            4 => node.operator = field.text(),
            5 => node.read_attribute(field.bytes()),
            other => panic!("a node has no field {other}"),
        });
        node
    }

    fn read_attribute(&mut self, bytes: &[u8]) {
        let (mut name, mut kind) = (String::new(), 0);
        let (mut float, mut integer, mut list) = (None, None, Vec::new());
        read(bytes, |number, field| match (number, field) {
            (1, field) => name = field.text(),
            (2, Field::Float(value)) => float = Some(value),
            (3, field) => integer = Some(field.integer()),
            (8, field) => list.push(field.integer()),
            (20, field) => kind = field.integer(),
            (other, _) => panic!("an attribute has no field {other}"),
        });
        match (kind, float, integer) {
            (1, Some(value), None) => _ = self.floats.insert(name, value),
            (2, None, Some(value)) => _ = self.integers.insert(name, value),
            (7, None, None) => _ = self.lists.insert(name, list),
            other => panic!("{name} is {other:?}"),
        }
    }
}

impl Tensor {
    fn read(bytes: &[u8]) -> Tensor {
        let mut tensor = Tensor::default();
        read(bytes, |number, field| match number {
            1 => tensor.shape.push(field.integer() as usize),
            2 => tensor.element = field.integer(),
            8 => tensor.name = field.text(),
            9 => tensor.values = field.bytes().to_vec(),
            other => panic!("a tensor has no field {other}"),
        });
        tensor
    }
}

impl ValueInfo {
    fn read(bytes: &[u8]) -> ValueInfo {
        let mut value = ValueInfo::default();
        read(bytes, |number, field| match number {
            1 => value.name = field.text(),
            2 => read(field.bytes(), |number, field| match number {
                1 => value.read_type(field.bytes()),
                other => panic!("a type is no tensor's but {other}"),
            }),
            3 => value.about = field.text(),
            other => panic!("a value has no field {other}"),
        });
        value
    }

    fn read_type(&mut self, bytes: &[u8]) {
        read(bytes, |number, field| match number {
            1 => self.element = field.integer(),
            2 => read(field.bytes(), |number, field| {
                assert_eq!(number, 1, "a shape has extents");
                read(field.bytes(), |number, field| match number {
                    1 => self.shape.push(field.integer().to_string()),
                    2 => self.shape.push(field.text()),
                    other => panic!("an extent has no field {other}"),
                });
            }),
            other => panic!("a tensor's type has no field {other}"),
        });
    }
}
