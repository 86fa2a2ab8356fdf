//! The dump against files made by hand from the format crate: what it shows, what it says of damage,
//! and that it needs nothing else of the project.

mod alone;
mod damage;
mod golden;
mod image;
mod walk;
