//! What a PTX module says, typed where PTX has types and with a line wherever something can go wrong.

/// State spaces.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Space {
    /// Registers.
    Reg,
    /// Kernel and function parameters.
    Param,
    /// Memory of one thread.
    Local,
    /// Memory of one block.
    Shared,
    /// Device memory.
    Global,
    /// Read-only device memory.
    Const,
    /// Any of the above, told apart by the address.
    Generic,
}

/// The fundamental types of PTX that a register or an instruction can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs, reason = "the names are PTX's own")]
pub enum Type {
    Pred,
    B8,
    B16,
    B32,
    B64,
    B128,
    U8,
    U16,
    U32,
    U64,
    S8,
    S16,
    S32,
    S64,
    F16,
    F16x2,
    Bf16,
    Bf16x2,
    Tf32,
    F32,
    F64,
    U16x2,
    S16x2,
    E4m3x2,
    E5m2x2,
}

impl Type {
    /// The type that a modifier names, if it names one.
    #[must_use]
    pub fn parse(word: &str) -> Option<Self> {
        Some(match word {
            "pred" => Self::Pred,
            "b8" => Self::B8,
            "b16" => Self::B16,
            "b32" => Self::B32,
            "b64" => Self::B64,
            "b128" => Self::B128,
            "u8" => Self::U8,
            "u16" => Self::U16,
            "u32" => Self::U32,
            "u64" => Self::U64,
            "s8" => Self::S8,
            "s16" => Self::S16,
            "s32" => Self::S32,
            "s64" => Self::S64,
            "f16" => Self::F16,
            "f16x2" => Self::F16x2,
            "bf16" => Self::Bf16,
            "bf16x2" => Self::Bf16x2,
            "tf32" => Self::Tf32,
            "f32" => Self::F32,
            "f64" => Self::F64,
            "u16x2" => Self::U16x2,
            "s16x2" => Self::S16x2,
            "e4m3x2" => Self::E4m3x2,
            "e5m2x2" => Self::E5m2x2,
            _ => return None,
        })
    }

    /// Size in bytes; a predicate counts as none.
    #[must_use]
    pub fn size(self) -> usize {
        match self {
            Self::Pred => 0,
            Self::B8 | Self::U8 | Self::S8 => 1,
            Self::B16 | Self::U16 | Self::S16 | Self::F16 | Self::Bf16 | Self::E4m3x2 | Self::E5m2x2 => 2,
            Self::B32
            | Self::U32
            | Self::S32
            | Self::F32
            | Self::Tf32
            | Self::F16x2
            | Self::Bf16x2
            | Self::U16x2
            | Self::S16x2 => 4,
            Self::B64 | Self::U64 | Self::S64 | Self::F64 => 8,
            Self::B128 => 16,
        }
    }

    /// Is it a signed integer?
    #[must_use]
    pub fn is_signed(self) -> bool {
        matches!(self, Self::S8 | Self::S16 | Self::S32 | Self::S64)
    }
}

/// An initial value in a variable's declaration.
#[derive(Clone, Debug, PartialEq)]
pub enum Initial {
    /// The bits of a number.
    Bits(u64),
    /// The address of another variable.
    Address(String),
}

/// A declared variable or parameter.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its name.
    pub name: String,
    /// Where it lives.
    pub space: Space,
    /// The type of an element.
    pub ty: Type,
    /// Elements, all array dimensions and the vector width multiplied; 0 for an array whose size the launch gives.
    pub count: usize,
    /// Alignment in bytes.
    pub align: usize,
    /// Values of the first elements.
    pub initial: Vec<Initial>,
    /// For `.reg .b32 %r<9>`: the 9.
    pub range: Option<usize>,
    /// Line of the declaration.
    pub line: u32,
}

impl Variable {
    /// Size in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.ty.size() * self.count
    }
}

/// An operand of an instruction.
#[derive(Clone, Debug, PartialEq)]
pub enum Operand {
    /// A register, special register, label, variable or function; `%tid.x` with its component.
    Name(String),
    /// `!%p1`.
    Not(String),
    /// The bits of an integer.
    Integer(u64),
    /// The bits of a single.
    Single(u32),
    /// The bits of a double.
    Double(u64),
    /// `{a, b}`.
    Vector(Vec<Operand>),
    /// `[base+offset]`; base is a name or none.
    Address(Option<String>, i64),
    /// `[base, {x, y}]`: a tensor map and coordinates, or whatever else stands in brackets with a comma.
    Tensor(Vec<Operand>),
    /// `a|b`.
    Pair(Box<Operand>, Box<Operand>),
    /// `(a, b)`: the arguments of a call.
    Arguments(Vec<Operand>),
    /// `_`.
    Sink,
}

/// One instruction.
#[derive(Clone, Debug)]
pub struct Instruction {
    /// Its line in the module's text.
    pub line: u32,
    /// The predicate's name, and whether it is negated.
    pub guard: Option<(String, bool)>,
    /// The stem: `mad`.
    pub opcode: String,
    /// What follows it: `["lo", "s32"]`.
    pub modifiers: Vec<String>,
    /// Operands in the order written.
    pub operands: Vec<Operand>,
}

impl Instruction {
    /// Stem and modifiers as written: `mad.lo.s32`.
    #[must_use]
    pub fn name(&self) -> String {
        let mut name = self.opcode.clone();
        for modifier in &self.modifiers {
            name.push('.');
            name.push_str(modifier);
        }
        name
    }

    /// Is this modifier present?
    #[must_use]
    pub fn has(&self, modifier: &str) -> bool {
        self.modifiers.iter().any(|have| have == modifier)
    }

    /// The types among the modifiers, in order.
    #[must_use]
    pub fn types(&self) -> Vec<Type> {
        self.modifiers.iter().filter_map(|word| Type::parse(word)).collect()
    }
}

/// A statement of a function's body.
#[derive(Clone, Debug)]
pub enum Statement {
    /// An instruction.
    Instruction(Instruction),
    /// `name:`.
    Label(String),
    /// A variable or a range of registers.
    Variable(Variable),
    /// `{ … }`: a scope of names.
    Block(Vec<Statement>),
    /// `name: .branchtargets a, b;`.
    Targets(String, Vec<String>),
}

/// An entry (kernel) or a device function.
#[derive(Clone, Debug)]
pub struct Function {
    /// Its name.
    pub name: String,
    /// `.entry`, callable by a launch?
    pub kernel: bool,
    /// Parameters in order.
    pub parameters: Vec<Variable>,
    /// Return parameters.
    pub returns: Vec<Variable>,
    /// The body; none for a declaration.
    pub body: Option<Vec<Statement>>,
    /// `.reqntid`, if given: threads a block in x, y, z.
    pub required_threads: Option<[u32; 3]>,
    /// The product of `.maxntid`, if given.
    pub max_threads: Option<u32>,
    /// Line of its name.
    pub line: u32,
}

/// A module.
#[derive(Clone, Debug, Default)]
pub struct Module {
    /// `.version`, as major and minor.
    pub version: (u32, u32),
    /// `.target`'s first word: `sm_80`, `sm_90a`.
    pub target: String,
    /// Module-level variables.
    pub variables: Vec<Variable>,
    /// Functions in order.
    pub functions: Vec<Function>,
}
