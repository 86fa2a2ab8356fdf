//! Things by number, a free number being given again. In pages, so that growing neither moves nor doubles them.

const PAGE: usize = 256;

/// See the head of the module.
#[derive(Debug)]
pub(super) struct Places<T> {
    pages: Vec<Vec<Option<T>>>,
    free: Vec<u32>,
}

impl<T> Default for Places<T> {
    fn default() -> Places<T> {
        Places {
            pages: Vec::new(),
            free: Vec::new(),
        }
    }
}

impl<T> Places<T> {
    /// Puts what is made for a number there.
    pub(super) fn add(&mut self, make: impl FnOnce(u32) -> T) -> u32 {
        let number = self.free.pop().unwrap_or_else(|| {
            if self.pages.last().is_none_or(|page| page.len() == PAGE) {
                self.pages.push(Vec::with_capacity(PAGE));
            }
            let before = (self.pages.len() - 1) * PAGE;
            let page = self.pages.last_mut().expect("there is one with room");
            page.push(None);
            u32::try_from(before + page.len() - 1).expect("each takes more than a byte")
        });
        *self.at(number).expect("it has been made") = Some(make(number));
        number
    }

    pub(super) fn get(&self, number: u32) -> Option<&T> {
        let number = number as usize;
        self.pages.get(number / PAGE)?.get(number % PAGE)?.as_ref()
    }

    pub(super) fn get_mut(&mut self, number: u32) -> Option<&mut T> {
        self.at(number)?.as_mut()
    }

    pub(super) fn remove(&mut self, number: u32) -> Option<T> {
        let removed = self.at(number)?.take();
        if removed.is_some() {
            self.free.push(number);
        }
        removed
    }

    /// How many there are.
    pub(super) fn len(&self) -> usize {
        let last = self.pages.last().map_or(0, Vec::len);
        let full = self.pages.len().saturating_sub(1) * PAGE;
        full + last - self.free.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.pages.iter().flatten().flatten()
    }

    pub(super) fn numbered(&mut self) -> impl Iterator<Item = (u32, &mut T)> {
        let places = (0..).zip(self.pages.iter_mut().flatten());
        places.filter_map(|(number, place)| place.as_mut().map(|thing| (number, thing)))
    }

    fn at(&mut self, number: u32) -> Option<&mut Option<T>> {
        let number = number as usize;
        self.pages.get_mut(number / PAGE)?.get_mut(number % PAGE)
    }
}
