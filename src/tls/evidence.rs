//! Why a client is believed, for as long as its connection lasts.

use super::trust::Trust;
use crate::identity::certificate::Facts;
use crate::identity::{Authenticated, Caller, Evidence};
use arc_swap::ArcSwap;
use rustls::CertificateError;
use rustls::pki_types::CertificateDer;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

/// What is trusted now, and how often that changed.
#[derive(Debug)]
pub(super) struct Trusted {
    trust: ArcSwap<Trust>,
    generation: AtomicU64,
}

/// A chain that was shown.
#[derive(Debug)]
struct Proof {
    chain: Vec<CertificateDer<'static>>,
    caller: Caller,
    ends: SystemTime,
    trusted: Arc<Trusted>,
    /// The generation that it was last judged by, times two, and one more where it held.
    memo: AtomicU64,
}

impl Trusted {
    pub(super) fn new(trust: Arc<Trust>) -> Self {
        Self { trust: ArcSwap::new(trust), generation: AtomicU64::new(0) }
    }

    pub(super) fn generation(&self) -> u64 {
        self.generation.load(Ordering::Acquire)
    }

    pub(super) fn trust(&self) -> Arc<Trust> {
        self.trust.load_full()
    }

    pub(super) fn replace(&self, trust: Arc<Trust>) {
        self.trust.store(trust);
    }

    /// All are judged again: by what was put in place before, or because what is in place has come to an end.
    pub(super) fn judge_again(&self) {
        self.generation.fetch_add(1, Ordering::Release);
    }

    /// Takes a chain that the handshake took, by what was trusted in this generation.
    pub(super) fn admit(
        self: &Arc<Self>,
        chain: &[CertificateDer<'_>],
        generation: u64,
        now: SystemTime,
    ) -> Result<Authenticated, rustls::Error> {
        let chain: Vec<_> = chain.iter().map(|der| der.clone().into_owned()).collect();
        let caller = self.trust.load().judge(&chain, now)?;
        let facts: Result<Vec<_>, _> = chain.iter().map(|der| Facts::of(der)).collect();
        let facts = facts.map_err(|_malformed| rustls::Error::from(CertificateError::BadEncoding))?;
        let ends = facts.iter().map(|facts| facts.period.until).min();
        let ends = ends.ok_or(rustls::Error::NoCertificatesPresented)?;
        let memo = AtomicU64::new(memo(generation, true));
        let proof = Proof { chain, caller: caller.clone(), ends, trusted: Arc::clone(self), memo };
        Ok(Authenticated { caller, evidence: Arc::new(proof) })
    }
}

impl Proof {
    fn judge(&self, now: SystemTime) -> bool {
        self.trusted.trust.load().judge(&self.chain, now).is_ok_and(|caller| caller == self.caller)
    }
}

impl Evidence for Proof {
    fn holds(&self, now: SystemTime) -> bool {
        if self.ends < now {
            return false;
        }
        let generation = self.trusted.generation();
        let known = self.memo.load(Ordering::Relaxed);
        if known >> 1 == generation {
            return known & 1 == 1;
        }
        let holds = self.judge(now);
        self.memo.store(memo(generation, holds), Ordering::Relaxed);
        holds
    }

    fn ends(&self) -> Option<SystemTime> {
        Some(self.ends)
    }
}

fn memo(generation: u64, holds: bool) -> u64 {
    generation << 1 | u64::from(holds)
}
