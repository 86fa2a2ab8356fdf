//! All mutants of one file in one text: beside each piece of code that a mutant changes stands what the mutant
//! makes of it, and `on(n)` chooses.
//!
//! `a == b` becomes `(if !on(7) { a == b } else { a != b })`, a function's body begins with
//! `if on(8) { return 0; }`. The pieces are found by the places that cargo-mutants gives for each mutant.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use proc_macro2::LineColumn;
use syn::spanned::Spanned;
use syn::visit::Visit;

use crate::list::{Genre, Mutant};

/// A woven file.
pub struct Woven {
    pub text: String,
    /// Of each line, beginning with 0, the mutants whose code stands there.
    pub lines: Vec<Vec<usize>>,
    /// Mutants that cannot be chosen while the program runs.
    pub without_choice: Vec<usize>,
    /// Mutants that are not Rust.
    pub not_rust: Vec<usize>,
}

/// Weaves `mutants`, each with its number, into `text`. `on` is the path of the function that chooses.
pub fn weave(text: &str, mutants: &[(usize, &Mutant)], on: &str) -> Woven {
    let file = syn::parse_file(text).expect("what cargo-mutants has parsed is Rust");
    let mut places = Places::new(text);
    places.visit_file(&file);
    let mut pieces: BTreeMap<(usize, usize), Piece> = BTreeMap::new();
    let (mut without_choice, mut not_rust) = (Vec::new(), Vec::new());
    for &(number, mutant) in mutants {
        let span = places.offset(mutant.start)..places.offset(mutant.end);
        let Some((whole, form)) = places.place(mutant.genre, &span) else {
            if places.not_rust.contains(&(span.start, span.end)) {
                not_rust.push(number);
            } else {
                without_choice.push(number);
            }
            continue;
        };
        let instead = match form {
            Form::Choice => {
                let (before, after) = (&text[whole.start..span.start], &text[span.end..whole.end]);
                format!("{before}{}{after}", mutant.replacement)
            }
            Form::Return | Form::Arm => mutant.replacement.clone(),
        };
        // What is outside comes first, and a place that is empty before what begins there.
        let key = (whole.start, usize::MAX - whole.end);
        let piece = pieces.entry(key).or_insert(Piece {
            whole,
            form,
            mutants: Vec::new(),
        });
        piece.mutants.push((number, instead));
    }
    let pieces: Vec<Piece> = pieces.into_values().collect();
    let mut out = Out::default();
    out.render(text, 0..text.len(), &mut pieces.iter().peekable(), on);
    out.lines.resize(out.text.lines().count() + 1, Vec::new());
    Woven {
        text: out.text,
        lines: out.lines,
        without_choice,
        not_rust,
    }
}

/// How mutants of a place are chosen.
#[derive(Clone, Copy)]
enum Form {
    /// An expression, or another one.
    Choice,
    /// Behind the brace that opens a body.
    Return,
    /// Behind the pattern of an arm, which has no guard.
    Arm,
}

struct Piece {
    whole: Range<usize>,
    form: Form,
    mutants: Vec<(usize, String)>,
}

/// Where things stand in a text.
struct Places {
    line_starts: Vec<usize>,
    text: String,
    /// From the operator, field or guard to the expression that it is a part of.
    wholes: BTreeMap<(usize, usize), Range<usize>>,
    /// From the beginning of the first statement to behind the brace.
    bodies: BTreeMap<usize, usize>,
    /// From an arm to behind its pattern.
    arms: BTreeMap<(usize, usize), usize>,
    /// Changed in any way, it is not Rust.
    not_rust: BTreeSet<(usize, usize)>,
}

impl Places {
    fn new(text: &str) -> Places {
        let breaks = text.match_indices('\n').map(|(at, _)| at + 1);
        Places {
            line_starts: std::iter::once(0).chain(breaks).collect(),
            text: text.to_owned(),
            wholes: BTreeMap::new(),
            bodies: BTreeMap::new(),
            arms: BTreeMap::new(),
            not_rust: BTreeSet::new(),
        }
    }

    /// Of a line that counts from 1 and a column of characters that counts from 0.
    fn offset(&self, (line, column): (usize, usize)) -> usize {
        let start = self.line_starts[line - 1];
        let rest = &self.text[start..];
        start
            + rest
                .char_indices()
                .nth(column)
                .map_or(rest.len(), |(at, _)| at)
    }

    fn at(&self, place: LineColumn) -> usize {
        self.offset((place.line, place.column))
    }

    fn range(&self, what: &impl Spanned) -> Range<usize> {
        let span = what.span();
        self.at(span.start())..self.at(span.end())
    }

    fn place(&self, genre: Genre, span: &Range<usize>) -> Option<(Range<usize>, Form)> {
        match genre {
            Genre::Body => {
                let at = *self.bodies.get(&span.start)?;
                Some((at..at, Form::Return))
            }
            Genre::Arm => {
                let at = *self.arms.get(&(span.start, span.end))?;
                Some((at..at, Form::Arm))
            }
            Genre::Part => {
                let whole = self.wholes.get(&(span.start, span.end))?;
                Some((whole.clone(), Form::Choice))
            }
        }
    }

    fn part(&mut self, part: &impl Spanned, whole: &impl Spanned) {
        let (part, whole) = (self.range(part), self.range(whole));
        self.wholes.insert((part.start, part.end), whole);
    }

    fn body(&mut self, signature: &syn::Signature, block: &syn::Block) {
        // Two ways out of a function have to agree in a type that it does not name.
        let unnamed = match &signature.output {
            syn::ReturnType::Type(_, it) => self.text[self.range(it)].contains("impl "),
            syn::ReturnType::Default => false,
        };
        if let (false, Some(first)) = (unnamed, block.stmts.first()) {
            let first = self.range(first).start;
            let behind = self.at(block.brace_token.span.open().end());
            self.bodies.insert(first, behind);
        }
    }
}

impl<'ast> Visit<'ast> for Places {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.body(&item.sig, &item.block);
        syn::visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.body(&item.sig, &item.block);
        syn::visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.body(&item.sig, block);
        }
        syn::visit::visit_trait_item_fn(self, item);
    }

    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        // A `let` in a condition cannot be moved, and nothing but `&&` may stand beside it.
        if binds(&binary.left) || binds(&binary.right) {
            let operator = self.range(&binary.op);
            self.not_rust.insert((operator.start, operator.end));
        } else {
            self.part(&binary.op, binary);
        }
        syn::visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        self.part(&unary.op, unary);
        syn::visit::visit_expr_unary(self, unary);
    }

    fn visit_expr_struct(&mut self, literal: &'ast syn::ExprStruct) {
        if literal.rest.is_some() {
            let whole = self.range(literal);
            for pair in literal.fields.pairs() {
                let field = self.range(pair.value());
                let end = pair
                    .punct()
                    .map_or(field.end, |comma| self.range(comma).end);
                self.wholes.insert((field.start, end), whole.clone());
            }
        }
        syn::visit::visit_expr_struct(self, literal);
    }

    fn visit_expr_match(&mut self, whole: &'ast syn::ExprMatch) {
        // Without an arm that takes everything, no other can be left out.
        let rest = |arm: &syn::Arm| arm.guard.is_none() && matches!(arm.pat, syn::Pat::Wild(_));
        let total = whole.arms.iter().any(rest);
        for arm in &whole.arms {
            match &arm.guard {
                Some((_, guard)) if !binds(guard) => self.part(guard, guard),
                None => {
                    let (arm, pattern) = (self.range(arm), self.range(&arm.pat));
                    if total {
                        self.arms.insert((arm.start, arm.end), pattern.end);
                    } else {
                        self.not_rust.insert((arm.start, arm.end));
                    }
                }
                Some(_) => {}
            }
        }
        syn::visit::visit_expr_match(self, whole);
    }

    /// Nothing in a pattern can be chosen.
    fn visit_pat(&mut self, _: &'ast syn::Pat) {}
}

fn binds(expression: &syn::Expr) -> bool {
    match expression {
        syn::Expr::Let(_) => true,
        syn::Expr::Binary(binary) => binds(&binary.left) || binds(&binary.right),
        _ => false,
    }
}

#[derive(Default)]
struct Out {
    text: String,
    lines: Vec<Vec<usize>>,
}

type Pieces<'a> = std::iter::Peekable<std::slice::Iter<'a, Piece>>;

impl Out {
    /// `range` of `text`, with the pieces that begin in it.
    fn render(&mut self, text: &str, range: Range<usize>, pieces: &mut Pieces, on: &str) {
        let mut at = range.start;
        while let Some(piece) = pieces.next_if(|piece| piece.whole.end <= range.end) {
            self.text.push_str(&text[at..piece.whole.start]);
            at = piece.whole.end;
            let numbers: Vec<usize> = piece.mutants.iter().map(|(number, _)| *number).collect();
            let any: Vec<String> = numbers.iter().map(|n| format!("{on}({n})")).collect();
            let any = any.join(" | ");
            match piece.form {
                Form::Return => {
                    for (number, value) in &piece.mutants {
                        let code = format!("if {on}({number}) {{ return {value}; }}");
                        self.lines_of(&[*number], &code);
                    }
                }
                Form::Arm => self.lines_of(&numbers, &format!(" if !({any})")),
                Form::Choice => {
                    self.text.push('(');
                    self.lines_of(&numbers, &format!("if !({any}) {{"));
                    self.render(text, piece.whole.clone(), pieces, on);
                    self.text.push_str("\n}");
                    let (last, others) = piece.mutants.split_last().expect("a piece has a mutant");
                    for (number, instead) in others {
                        let code = format!("else if {on}({number}) {{ {instead} }}");
                        self.lines_of(&[*number], &code);
                    }
                    self.lines_of(&[last.0], &format!("else {{ {} }}", last.1));
                    self.text.push(')');
                }
            }
        }
        self.text.push_str(&text[at..range.end]);
    }

    /// Code on lines of its own.
    fn lines_of(&mut self, numbers: &[usize], code: &str) {
        self.text.push('\n');
        let first = self.text.matches('\n').count();
        self.text.push_str(code);
        self.text.push('\n');
        let behind = self.text.matches('\n').count();
        self.lines.resize(behind.max(self.lines.len()), Vec::new());
        for line in &mut self.lines[first..behind] {
            line.extend_from_slice(numbers);
        }
    }
}
