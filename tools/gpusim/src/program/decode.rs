//! The decoder: what the instruction families ask for rows, addresses and predicates.

use super::flow::{self, Next};
use super::names::{self, Meaning, Rows, Scopes};
use super::{Act, CallSite, Class, Copy, Inst, Kernel, NEVER, Parameter, Slot, Special};
use crate::exec;
use crate::ptx::ast::{self, Function, Instruction, Operand, Space, Statement, Type, Variable};
use std::collections::HashMap;
use std::num::NonZero;

/// A kernel that can't be made ready.
#[derive(Clone, Debug, thiserror::Error)]
#[error("PTX line {line}: {what}")]
pub struct DecodeError {
    /// The line.
    pub line: u32,
    /// Why.
    pub what: String,
}

impl DecodeError {
    /// An error at `line`.
    pub fn new(line: u32, what: impl Into<String>) -> Self {
        Self {
            line,
            what: what.into(),
        }
    }
}

type Result<T> = std::result::Result<T, DecodeError>;

/// A base address in an operand: its row, whether that row is of 32 bits, and the constant added to it.
#[derive(Clone, Copy, Debug)]
pub struct Address {
    /// The row.
    pub base: Slot,
    /// A row of 32-bit values?
    pub narrow: bool,
    /// What to add.
    pub offset: i64,
}

/// Something left to fill in when all labels are known.
enum Patch {
    Branch(String),
    Switch(u32, Vec<String>),
}

/// Turns one kernel, and the functions it calls, into a [`Kernel`].
pub struct Decoder<'m> {
    module: &'m ast::Module,
    scopes: Scopes,
    rows: Rows,
    code: Vec<Inst>,
    tables: Vec<Vec<u32>>,
    calls: Vec<CallSite>,
    functions: HashMap<String, Decoded>,
    open: Vec<String>,
    pending: Vec<(u32, String)>,
    local: usize,
    shared: usize,
    line: u32,
    // Of the function at hand:
    labels: HashMap<String, usize>,
    branch_tables: HashMap<String, Vec<String>>,
    patches: Vec<(usize, Patch)>,
    kernel: bool,
}

/// A function's place, once decoded.
#[derive(Clone, Default)]
struct Decoded {
    entry: u32,
    inputs: Vec<(u32, u32)>,
    outputs: Vec<(u32, u32)>,
}

impl<'m> Decoder<'m> {
    /// Decodes the kernel `function`; `globals` has the addresses of the module's variables.
    ///
    /// # Errors
    /// An instruction that isn't supported, a name that isn't declared.
    pub fn kernel(
        module: &'m ast::Module,
        function: &Function,
        globals: &HashMap<String, u64>,
    ) -> Result<Kernel> {
        let mut decoder = Decoder {
            module,
            scopes: Scopes::default(),
            rows: Rows::new(),
            code: Vec::new(),
            tables: Vec::new(),
            calls: Vec::new(),
            functions: HashMap::new(),
            open: Vec::new(),
            pending: Vec::new(),
            local: 0,
            shared: 0,
            line: function.line,
            labels: HashMap::new(),
            branch_tables: HashMap::new(),
            patches: Vec::new(),
            kernel: true,
        };
        decoder.scopes.open();
        for variable in &module.variables {
            let meaning = match variable.space {
                Space::Shared if variable.count == 0 => Meaning::Dynamic,
                Space::Shared => Meaning::Shared(variable.bytes(), variable.align),
                _ => match globals.get(&variable.name) {
                    Some(&address) => Meaning::Address(address),
                    None => continue,
                },
            };
            decoder.scopes.declare(&variable.name, meaning);
        }
        decoder.scopes.open();
        let (mut parameters, mut bytes) = (Vec::new(), 0usize);
        for parameter in &function.parameters {
            let offset = bytes.next_multiple_of(parameter.align);
            parameters.push(Parameter {
                offset,
                bytes: parameter.bytes(),
            });
            decoder
                .scopes
                .declare(&parameter.name, Meaning::KernelParameter(offset as u32));
            bytes = offset + parameter.bytes();
        }
        decoder.open.push(function.name.clone());
        decoder.function_body(function)?;
        while let Some((call, name)) = decoder.pending.pop() {
            decoder.callee(call, &name)?;
        }
        let target = module
            .target
            .trim_start_matches("sm_")
            .trim_end_matches(['a', 'f']);
        Ok(Kernel {
            name: function.name.clone(),
            code: decoder.code,
            tables: decoder.tables,
            calls: decoder.calls,
            parameters,
            parameter_bytes: bytes,
            register_bytes: decoder.rows.bytes.next_multiple_of(64),
            declared_registers: decoder.rows.declared,
            fills: decoder.rows.fills,
            local_bytes: decoder.local.next_multiple_of(16),
            shared_bytes: decoder.shared,
            required_threads: function.required_threads,
            max_threads: function.max_threads.unwrap_or(1024),
            ptx_version: module.version.0 * 10 + module.version.1,
            target: target.parse().unwrap_or(0),
        })
    }

    /// An error at the instruction in hand.
    pub fn fail<T>(&self, what: impl Into<String>) -> Result<T> {
        Err(DecodeError::new(self.line, what))
    }

    /// The error for an instruction that this GPU doesn't know.
    pub fn unsupported<T>(&self, ins: &Instruction) -> Result<T> {
        self.fail(format!("the instruction `{}` is not supported", ins.name()))
    }

    /// Checks that an instruction has no modifiers but types and these.
    ///
    /// # Errors
    /// It has others: it is a variant that nobody here knows.
    pub fn only(&self, ins: &Instruction, known: &[&str]) -> Result<()> {
        let strange =
            |word: &&String| Type::parse(word).is_none() && !known.contains(&word.as_str());
        if ins.modifiers.iter().find(strange).is_some() {
            self.unsupported(ins)
        } else {
            Ok(())
        }
    }

    /// The operand at `index`.
    ///
    /// # Errors
    /// Too few operands.
    pub fn operand<'i>(&self, ins: &'i Instruction, index: usize) -> Result<&'i Operand> {
        match ins.operands.get(index) {
            Some(operand) => Ok(operand),
            None => self.fail(format!("`{}` lacks operand {}", ins.name(), index + 1)),
        }
    }

    fn meaning(&self, name: &str) -> Result<Meaning> {
        match self.scopes.find(name) {
            Some(meaning) => Ok(meaning.clone()),
            None => self.fail(format!("`{name}` is not declared")),
        }
    }

    /// The row and type of a register.
    ///
    /// # Errors
    /// The operand isn't one.
    pub fn register(&self, operand: &Operand) -> Result<(Slot, Type)> {
        if let Operand::Name(name) = operand
            && let Meaning::Register(slot, ty) = self.meaning(name)?
        {
            return Ok((slot, ty));
        }
        self.fail(format!("{operand:?} is not a register"))
    }

    /// A row to read a value of `ty` from: a register's, or a new one that holds the constant, address or special
    /// register.
    ///
    /// # Errors
    /// Not a value, or a register of another size.
    pub fn src(&mut self, operand: &Operand, ty: Type) -> Result<Slot> {
        let (slot, size) = self.src_any(operand, ty)?;
        if size != ty.size().max(2) {
            return self.fail(format!("{operand:?} has {size} bytes where {ty:?} is read"));
        }
        Ok(slot)
    }

    /// As [`Self::src`], for any register of at least `ty`'s size; also gives the row's element size.
    ///
    /// # Errors
    /// Not a value, or a register that is too small.
    pub fn src_any(&mut self, operand: &Operand, ty: Type) -> Result<(Slot, usize)> {
        let size = ty.size().max(2);
        let bits = match operand {
            Operand::Integer(bits) => match ty {
                Type::F32 => u64::from((*bits as i64 as f32).to_bits()),
                Type::F64 => (*bits as i64 as f64).to_bits(),
                _ => *bits,
            },
            Operand::Single(bits) => match ty {
                Type::F64 => f64::from(f32::from_bits(*bits)).to_bits(),
                _ => u64::from(*bits),
            },
            Operand::Double(bits) => match ty {
                Type::F32 => u64::from((f64::from_bits(*bits) as f32).to_bits()),
                _ => *bits,
            },
            Operand::Name(name) => {
                if let Some(special) = names::special(name) {
                    return Ok((self.rows.special(special), 4));
                }
                if name == "WARP_SZ" {
                    return Ok((self.rows.constant(size, 32), size));
                }
                match self.meaning(name)? {
                    Meaning::Register(slot, have)
                        if have.size().max(2) >= size && have != Type::Pred =>
                    {
                        return Ok((slot, have.size().max(2)));
                    }
                    Meaning::Register(_, have) => {
                        return self.fail(format!("{name} is {have:?} where {ty:?} is read"));
                    }
                    _ => {
                        let (slot, narrow) = self.address_of(name)?;
                        return if narrow || size == 8 {
                            Ok((slot, 8))
                        } else {
                            match self.meaning(name)? {
                                Meaning::Address(bits) => {
                                    Ok((self.rows.constant(size, bits), size))
                                }
                                Meaning::Dynamic => Ok((slot, 8)),
                                _ => self.fail(format!("the address of {name} in {size} bytes")),
                            }
                        };
                    }
                }
            }
            other => return self.fail(format!("{other:?} is not a value")),
        };
        Ok((self.rows.constant(size, bits), size))
    }

    /// A row to write a value of `ty` to; `_` gives one that nobody reads.
    ///
    /// # Errors
    /// Not a register, or one of another size.
    pub fn dst(&mut self, operand: &Operand, ty: Type) -> Result<Slot> {
        if *operand == Operand::Sink {
            return Ok(self.scratch(ty));
        }
        let (slot, have) = self.register(operand)?;
        if have == Type::Pred || have.size().max(2) != ty.size().max(2) {
            return self.fail(format!("{operand:?} is {have:?} where {ty:?} is written"));
        }
        Ok(slot)
    }

    /// Puts an instruction before the one in hand, which is more than one step. It writes rows that nobody else uses,
    /// so it needs no guard.
    pub fn emit(&mut self, inst: Inst) {
        self.code.push(Inst {
            line: self.line,
            ..inst
        });
    }

    /// A row that nobody else uses.
    pub fn scratch(&mut self, ty: Type) -> Slot {
        let declared = self.rows.declared;
        let slot = self.rows.register(ty);
        self.rows.declared = declared;
        slot
    }

    /// A row that holds `bits` in every lane.
    pub fn constant(&mut self, ty: Type, bits: u64) -> Slot {
        self.rows.constant(ty.size(), bits)
    }

    /// The row of a special register.
    pub fn special(&mut self, special: Special) -> Slot {
        self.rows.special(special)
    }

    /// A predicate to read, and whether it is negated.
    ///
    /// # Errors
    /// Not a predicate.
    pub fn predicate(&mut self, operand: &Operand) -> Result<(Slot, bool)> {
        match operand {
            Operand::Name(name) => self.predicate_named(name).map(|slot| (slot, false)),
            Operand::Not(name) => self.predicate_named(name).map(|slot| (slot, true)),
            Operand::Integer(value) => Ok((self.rows.constant_predicate(*value != 0), false)),
            other => self.fail(format!("{other:?} is not a predicate")),
        }
    }

    fn predicate_named(&self, name: &str) -> Result<Slot> {
        match self.meaning(name)? {
            Meaning::Register(slot, Type::Pred) => Ok(slot),
            _ => self.fail(format!("{name} is not a predicate")),
        }
    }

    /// A predicate to write; `_` gives one that nobody reads.
    ///
    /// # Errors
    /// Not a predicate.
    pub fn dst_predicate(&mut self, operand: &Operand) -> Result<Slot> {
        match operand {
            Operand::Sink => Ok(self.scratch(Type::Pred)),
            Operand::Name(name) => self.predicate_named(name),
            other => self.fail(format!("{other:?} is not a predicate")),
        }
    }

    /// The elements of a vector operand, or the operand itself.
    #[must_use]
    pub fn elements<'i>(&self, operand: &'i Operand) -> &'i [Operand] {
        match operand {
            Operand::Vector(elements) => elements,
            single => std::slice::from_ref(single),
        }
    }

    /// The row that holds a variable's address, and whether the variable is a parameter.
    fn address_of(&mut self, name: &str) -> Result<(Slot, bool)> {
        Ok(match self.meaning(name)? {
            Meaning::Address(address) => (self.rows.constant(8, address), false),
            Meaning::Dynamic => (self.rows.dynamic_shared(), false),
            Meaning::Shared(bytes, align) => {
                let at = self.shared.next_multiple_of(align);
                self.shared = at + bytes;
                self.scopes.redefine(name, Meaning::Address(at as u64));
                (self.rows.constant(8, at as u64), false)
            }
            Meaning::Parameter(offset, _) | Meaning::KernelParameter(offset) => {
                (self.rows.constant(8, offset.into()), true)
            }
            Meaning::Register(..) => return self.fail(format!("{name} has no address")),
        })
    }

    /// The address in brackets.
    ///
    /// # Errors
    /// Not an address.
    pub fn address(&mut self, operand: &Operand) -> Result<Address> {
        let Operand::Address(base, offset) = operand else {
            return self.fail(format!("{operand:?} is not an address"));
        };
        let Some(name) = base else {
            return Ok(Address {
                base: self.rows.constant(8, *offset as u64),
                narrow: false,
                offset: 0,
            });
        };
        if let Meaning::Register(slot, ty) = self.meaning(name)? {
            return match ty.size() {
                4 => Ok(Address {
                    base: slot,
                    narrow: true,
                    offset: *offset,
                }),
                8 => Ok(Address {
                    base: slot,
                    narrow: false,
                    offset: *offset,
                }),
                _ => self.fail(format!("{name} is no address: it is {ty:?}")),
            };
        }
        let (base, _) = self.address_of(name)?;
        Ok(Address {
            base,
            narrow: false,
            offset: *offset,
        })
    }

    /// Does the operand's base name a parameter of a device function or of a call (and not of the kernel)?
    #[must_use]
    pub fn is_function_parameter(&self, operand: &Operand) -> bool {
        matches!(operand, Operand::Address(Some(name), _)
            if matches!(self.scopes.find(name), Some(Meaning::Parameter(..))))
    }

    /// Is code for a kernel decoded just now (and not for a function it calls)?
    #[must_use]
    pub fn in_kernel(&self) -> bool {
        self.kernel
    }

    fn declare(&mut self, variable: &Variable) -> Result<()> {
        self.line = variable.line;
        match variable.space {
            Space::Reg => {
                if variable.ty == Type::B128 {
                    return self.fail("128-bit registers are not supported");
                }
                let names = match variable.range {
                    Some(count) => (0..count)
                        .map(|i| format!("{}{i}", variable.name))
                        .collect(),
                    None => vec![variable.name.clone()],
                };
                for name in names {
                    let slot = self.rows.register(variable.ty);
                    self.scopes
                        .declare(&name, Meaning::Register(slot, variable.ty));
                }
            }
            Space::Local => {
                let at = self.allocate_local(variable);
                self.scopes
                    .declare(&variable.name, Meaning::Address(at.into()));
            }
            Space::Param => {
                let at = self.allocate_local(variable);
                self.scopes.declare(
                    &variable.name,
                    Meaning::Parameter(at, variable.bytes() as u32),
                );
            }
            Space::Shared if variable.count == 0 => {
                self.scopes.declare(&variable.name, Meaning::Dynamic)
            }
            Space::Shared => {
                self.scopes.declare(
                    &variable.name,
                    Meaning::Shared(variable.bytes(), variable.align),
                );
            }
            Space::Global | Space::Const | Space::Generic => {
                return self.fail(format!("a {:?} variable inside a function", variable.space));
            }
        }
        Ok(())
    }

    fn allocate_local(&mut self, variable: &Variable) -> u32 {
        let at = self.local.next_multiple_of(variable.align);
        self.local = at + variable.bytes();
        at as u32
    }

    fn function_body(&mut self, function: &Function) -> Result<()> {
        self.kernel = function.kernel;
        self.labels.clear();
        self.branch_tables.clear();
        self.patches.clear();
        let start = self.code.len();
        let Some(body) = &function.body else {
            return self.fail(format!("`{}` has no body", function.name));
        };
        self.statements(body)?;
        // The end of the function, where every `ret` goes.
        let act = if function.kernel {
            Act::Exit
        } else {
            Act::Return
        };
        let mut end = Inst::new(Class::Control, act, &[]);
        end.line = self.line;
        self.code.push(end);
        self.link(start)
    }

    fn statements(&mut self, statements: &[Statement]) -> Result<()> {
        for statement in statements {
            match statement {
                Statement::Label(name) => {
                    self.labels.insert(name.clone(), self.code.len());
                }
                Statement::Targets(name, targets) => {
                    self.branch_tables.insert(name.clone(), targets.clone());
                }
                Statement::Variable(variable) => self.declare(variable)?,
                Statement::Block(inner) => {
                    self.scopes.open();
                    self.statements(inner)?;
                    self.scopes.close();
                }
                Statement::Instruction(ins) => self.instruction(ins)?,
            }
        }
        Ok(())
    }

    fn instruction(&mut self, ins: &Instruction) -> Result<()> {
        self.line = ins.line;
        let at = self.code.len();
        let mut inst = match ins.opcode.as_str() {
            "bra" => {
                let Operand::Name(label) = self.operand(ins, 0)?.clone() else {
                    return self.fail("a branch to something that isn't a label");
                };
                self.patches.push((at, Patch::Branch(label)));
                Inst::new(
                    Class::Control,
                    Act::Branch {
                        target: 0,
                        join: NEVER,
                    },
                    &[],
                )
            }
            "brx" => self.indirect_branch(ins, at)?,
            "call" => self.call(ins)?,
            "ret" if !self.kernel => {
                self.patches.push((at, Patch::Branch(String::new())));
                Inst::new(
                    Class::Control,
                    Act::Branch {
                        target: 0,
                        join: NEVER,
                    },
                    &[],
                )
            }
            "ret" | "exit" => Inst::new(Class::Control, Act::Exit, &[]),
            _ => exec::decode(self, ins)?,
        };
        inst.line = ins.line;
        if let Some((name, negated)) = &ins.guard {
            inst.guard = NonZero::new(self.predicate_named(name)?);
            inst.negated = *negated;
        }
        self.code.push(inst);
        Ok(())
    }

    fn indirect_branch(&mut self, ins: &Instruction, at: usize) -> Result<Inst> {
        let index = self.src(self.operand(ins, 0)?, Type::U32)?;
        let Operand::Name(list) = self.operand(ins, 1)? else {
            return self.unsupported(ins);
        };
        let Some(targets) = self.branch_tables.get(list).cloned() else {
            return self.fail(format!("the branch table {list} is not declared"));
        };
        let table = self.tables.len() as u32;
        self.tables.push(Vec::new());
        self.patches.push((at, Patch::Switch(table, targets)));
        Ok(Inst::new(
            Class::Control,
            Act::Switch { table, join: NEVER },
            &[index],
        ))
    }

    /// Fills in branch targets and joins of the function that began at `start`.
    fn link(&mut self, start: usize) -> Result<()> {
        let end = self.code.len() - 1;
        let find = |label: &str| -> Result<usize> {
            if label.is_empty() {
                return Ok(end);
            }
            self.labels
                .get(label)
                .copied()
                .ok_or_else(|| DecodeError::new(self.line, format!("no label {label}")))
        };
        for (at, patch) in &self.patches {
            match patch {
                Patch::Branch(label) => {
                    let target = find(label)?;
                    // A branch to a kernel's end is the end.
                    let leaves = matches!(self.code[target].act, Act::Exit)
                        && self.code[target].guard.is_none();
                    self.code[*at].act = if leaves {
                        Act::Exit
                    } else {
                        Act::Branch {
                            target: target as u32,
                            join: NEVER,
                        }
                    };
                }
                Patch::Switch(table, labels) => {
                    let targets: Result<Vec<u32>> = labels
                        .iter()
                        .map(|label| find(label).map(|t| t as u32))
                        .collect();
                    self.tables[*table as usize] = targets?;
                }
            }
        }
        let next: Vec<Next> = self.code[start..]
            .iter()
            .map(|inst| match inst.act {
                Act::Branch { target, .. } if inst.guard.is_none() => {
                    Next::Jump(vec![target as usize - start])
                }
                Act::Branch { target, .. } => Next::Fork(vec![target as usize - start]),
                Act::Switch { table, .. } => {
                    let targets = self.tables[table as usize]
                        .iter()
                        .map(|&t| t as usize - start)
                        .collect();
                    if inst.guard.is_none() {
                        Next::Jump(targets)
                    } else {
                        Next::Fork(targets)
                    }
                }
                Act::Exit | Act::Return if inst.guard.is_none() => Next::Leave,
                _ => Next::Fall,
            })
            .collect();
        for (i, found) in flow::joins(&next).into_iter().enumerate() {
            if let (Act::Branch { join, .. } | Act::Switch { join, .. }, Some(found)) =
                (&mut self.code[start + i].act, found)
            {
                *join = (start + found) as u32;
            }
        }
        Ok(())
    }

    /// `call (out), function, (in)`: parameters are copied between frames, since PTX passes them in memory.
    fn call(&mut self, ins: &Instruction) -> Result<Inst> {
        let mut operands = ins.operands.iter().peekable();
        let outputs = match operands.peek() {
            Some(Operand::Arguments(outputs)) => {
                operands.next();
                outputs.clone()
            }
            _ => Vec::new(),
        };
        let Some(Operand::Name(name)) = operands.next() else {
            return self.unsupported(ins);
        };
        let inputs = match operands.next() {
            Some(Operand::Arguments(inputs)) => inputs.clone(),
            None => Vec::new(),
            Some(_) => return self.unsupported(ins),
        };
        let Some(callee) = self
            .module
            .functions
            .iter()
            .rfind(|f| f.name == *name && f.body.is_some())
        else {
            return exec::decode_builtin(self, name, &inputs);
        };
        let place = |decoder: &Self, operand: &Operand| -> Result<(u32, u32)> {
            if let Operand::Name(name) = operand
                && let Meaning::Parameter(offset, bytes) = decoder.meaning(name)?
            {
                return Ok((offset, bytes));
            }
            decoder.fail(format!(
                "{operand:?} as an argument of a call; only .param variables are supported"
            ))
        };
        if self.open.contains(name) {
            return self.fail(format!("`{name}` calls itself; recursion is not supported"));
        }
        if inputs.len() != callee.parameters.len() || outputs.len() != callee.returns.len() {
            return self.fail(format!(
                "a call of `{name}` with another number of arguments"
            ));
        }
        let decoded = self.frame(callee);
        let mut site = CallSite {
            entry: 0,
            inputs: Vec::new(),
            outputs: Vec::new(),
        };
        for (operand, &(to, bytes)) in inputs.iter().zip(&decoded.inputs) {
            let (from, have) = place(self, operand)?;
            site.inputs.push(Copy {
                from,
                to,
                bytes: bytes.min(have),
            });
        }
        for (operand, &(from, bytes)) in outputs.iter().zip(&decoded.outputs) {
            let (to, have) = place(self, operand)?;
            site.outputs.push(Copy {
                from,
                to,
                bytes: bytes.min(have),
            });
        }
        let call = self.calls.len() as u32;
        self.calls.push(site);
        self.pending.push((call, name.clone()));
        Ok(Inst::new(Class::Control, Act::Call(call), &[]))
    }

    /// The parameter space of a function, made on its first call.
    fn frame(&mut self, callee: &Function) -> Decoded {
        if let Some(known) = self.functions.get(&callee.name) {
            return known.clone();
        }
        let place = |decoder: &mut Self, variables: &[Variable]| -> Vec<(u32, u32)> {
            variables
                .iter()
                .map(|v| (decoder.allocate_local(v), v.bytes() as u32))
                .collect()
        };
        let inputs = place(self, &callee.parameters);
        let outputs = place(self, &callee.returns);
        let decoded = Decoded {
            entry: NEVER,
            inputs,
            outputs,
        };
        self.functions.insert(callee.name.clone(), decoded.clone());
        decoded
    }

    /// Decodes the function of call `call`, unless done before, and links them.
    fn callee(&mut self, call: u32, name: &str) -> Result<()> {
        let mut decoded = self.functions[name].clone();
        if decoded.entry == NEVER {
            decoded.entry = self.code.len() as u32;
            let module = self.module;
            let Some(function) = module
                .functions
                .iter()
                .rfind(|f| f.name == name && f.body.is_some())
            else {
                return self.fail(format!("`{name}` has no body"));
            };
            let outer = self.scopes.set_aside();
            self.scopes.open();
            let formal = function.parameters.iter().zip(&decoded.inputs);
            for (variable, &(offset, bytes)) in
                formal.chain(function.returns.iter().zip(&decoded.outputs))
            {
                self.scopes
                    .declare(&variable.name, Meaning::Parameter(offset, bytes));
            }
            let waiting = std::mem::take(&mut self.pending);
            self.open.push(name.to_owned());
            self.functions.insert(name.to_owned(), decoded.clone());
            self.function_body(function)?;
            // Its own calls come before what waited: a path of open functions, so that recursion is seen.
            while let Some((call, name)) = self.pending.pop() {
                self.callee(call, &name)?;
            }
            self.open.pop();
            self.pending = waiting;
            self.scopes.restore(outer);
        }
        self.calls[call as usize].entry = decoded.entry;
        Ok(())
    }
}
