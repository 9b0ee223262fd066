//! Eureka's documents: against recordings of real servers and clients, and against obvious models.

mod golden;
mod recordings;
