/* SPDX-License-Identifier: MIT */
/*
 * How a migration begins, before anything changes: the source offers its set and its memory, the
 * destination compares them with its own, lists every difference at once, and says how long its
 * fresh devices take through the waves. A source may also only ask.
 */
#ifndef QSC_MIGRATE_NEGOTIATE_H
#define QSC_MIGRATE_NEGOTIATE_H

#include "migrate/engine.h"
#include "migrate/items.h"

/* Items of an OFFER; items.h says which are skipped by those who do not know them. */
#define QSC_OFFER_SHAPE	   1U			    /* shape.h */
#define QSC_OFFER_SOFTWARE (QSC_ITEM_OPTIONAL | 2U) /* text, for people */

/* Items of an ANSWER that accepts: microseconds, u64, of the destination's waves. */
#define QSC_ANSWER_QUIESCE_US (QSC_ITEM_OPTIONAL | 1U)
#define QSC_ANSWER_STOP_US    (QSC_ITEM_OPTIONAL | 2U)
#define QSC_ANSWER_START_US   (QSC_ITEM_OPTIONAL | 3U)

/* The payload of an OFFER; *bytes is the caller's to free. */
int qsc_negotiate_encode(const struct qsc_set *set, const struct qsc_migrate_user *user,
			 uint8_t **bytes, size_t *size, struct qsc_error *err);

/*
 * Source, connected: offer the set and take the answer, which fills in engine->remote; `asking`
 * leaves the destination waiting for a source. Then measure the link: engine->speed. Where nobody
 * answers the offer is only sent.
 */
int qsc_negotiate_offer(struct qsc_engine *engine, bool asking, struct qsc_error *err);

/*
 * Destination: wait until somebody offers a set and means it, whether it fits this one or not;
 * those who only ask are answered meanwhile, and whoever fails, leaves or takes long before it has
 * offered a set is dropped. The fresh devices are taken through the waves once, and *touched says
 * so. The answer is due next, also when this fails.
 */
int qsc_negotiate_await(struct qsc_engine *engine, bool *touched, struct qsc_error *err);

/* Destination: the answer: a refusal when refused->number is set. */
void qsc_negotiate_answer(struct qsc_engine *engine, const struct qsc_error *refused);

#endif
