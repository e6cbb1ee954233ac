/* SPDX-License-Identifier: MIT */
/* The items in order, and how they are run: each from a closed device to a closed device. */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include <quiesce/check.h>

#include "base/cleanup.h"
#include "check/actions.h"
#include "check/clause.h"
#include "check/walk.h"

#define DEFAULT_SETTLE_US  1500
#define DEFAULT_AWAIT_MS   5000
#define DEFAULT_WALK_STEPS 400

/* ---- the items ---- */

/* The clauses that bind a device come first among the clauses. */
#define NUM_CLAUSES ((size_t)QSC_CLAUSE_SET_1)
#define FIRST_WALK  (NUM_CLAUSES + QSC_ACTION_COUNT)
#define NUM_ITEMS   (FIRST_WALK + 1)

int qsc_check_item(size_t index, struct qsc_check_item *item)
{
	if (index >= NUM_ITEMS)
		return -EINVAL;
	*item = (struct qsc_check_item){"walk", QSC_CLAUSE_COUNT,
					"Random walks over all actions, judged by the contract"};
	if (index < NUM_CLAUSES) {
		const struct qsc_clause_info *info = qsc_clause_info((enum qsc_clause)index);

		*item = (struct qsc_check_item){info->id, (enum qsc_clause)index, info->text};
	} else if (index < FIRST_WALK) {
		enum qsc_action action = (enum qsc_action)(index - NUM_CLAUSES);

		item->id = qsc_action_name(action);
		item->text = qsc_action_text(action);
	}
	return 0;
}

int qsc_check_item_find(const char *id)
{
	struct qsc_check_item item;

	for (size_t i = 0; !qsc_check_item(i, &item); i++)
		if (strcmp(item.id, id) == 0)
			return (int)i;
	return -EINVAL;
}

const char *qsc_check_result_name(enum qsc_check_result result)
{
	static const char *const names[QSC_CHECK_RESULT_COUNT] = {"holds", "broken", "not promised",
								  "could not be tried"};

	return (unsigned int)result < QSC_CHECK_RESULT_COUNT ? names[result] : "?";
}

/* ---- running one ---- */

static uint64_t now_us(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (uint64_t)now.tv_sec * 1000000U + (uint64_t)now.tv_nsec / 1000U;
}

static enum qsc_check_result run_item(struct harness *h, size_t index, bool migrates)
{
	if (!migrates)
		return not_promised(h, "the device does not migrate: asked how, it answers: %s",
				    strerror(h->no_flags));
	if (index < NUM_CLAUSES)
		return clause_find((enum qsc_clause)index)->run(h);
	if (index < FIRST_WALK)
		return actions_try(h, (enum qsc_action)(index - NUM_CLAUSES));
	return walks_try(h);
}

/* One that was there for this item and cannot be opened again, though nobody holds it, has ended.
 */
static bool is_gone(struct harness *h, enum qsc_check_result result)
{
	bool ended = result == QSC_CHECK_NOT_TRIED && h->opened && h->unopened &&
		     h->unopened != EBUSY;

	return ended || harness_gone(h);
}

/* Then nothing else says what was wrong, and nothing that held before holds. */
static enum qsc_check_result gone(struct harness *h, enum qsc_check_result result)
{
	char text[sizeof(h->evidence)];

	if (h->gone)
		return result;
	memcpy(text, h->evidence, sizeof(text));
	h->gone = true;
	return broken(h, "the %s is gone, it answers no more%s%.400s",
		      h->opener == &h->options->to ? "destination" : "device",
		      result == QSC_CHECK_HOLDS ? "" : ": ", result == QSC_CHECK_HOLDS ? "" : text);
}

/* Of what is broken: no clause says that a device answers at all. */
static enum qsc_clause clause_of(const struct harness *h, const struct qsc_check_item *item)
{
	if (h->gone)
		return QSC_CLAUSE_COUNT;
	return item->clause == QSC_CLAUSE_COUNT ? h->broken : item->clause;
}

static void report(struct harness *h, const struct qsc_check_item *item,
		   enum qsc_check_result result, uint64_t took_us)
{
	const char *steps[RECORD_HEAD + RECORD_TAIL];
	char text[sizeof(h->evidence) + sizeof(h->left_out) + 32];
	struct qsc_check_finding finding = {
		.item = *item,
		.result = result,
		.text = text,
		.clause = clause_of(h, item),
		.steps = steps,
		.took_us = took_us,
		.gone = h->gone,
		.unopened = result == QSC_CHECK_NOT_TRIED && h->unopened,
		.partly = result == QSC_CHECK_HOLDS && h->left_out[0],
	};

	(void)snprintf(text, sizeof(text), "%s%s%s", h->evidence,
		       finding.partly ? "; could not be tried: " : "",
		       finding.partly ? h->left_out : "");
	if (result == QSC_CHECK_BROKEN) {
		finding.num_steps = record_lines(&h->record, steps, &finding.omitted);
		finding.head = qsc_min_u64(finding.num_steps, RECORD_HEAD);
		finding.seed = h->seed;
	}
	if (h->options->found)
		h->options->found(h->options->found_ctx, &finding);
}

/* The device is left as a user should leave it, whatever has been done to it. */
static void try_item(struct harness *h, size_t index, bool migrates)
{
	struct qsc_check_item item;
	enum qsc_check_result result;
	uint64_t start = now_us();

	(void)qsc_check_item(index, &item);
	h->evidence[0] = '\0';
	h->trouble[0] = '\0';
	h->left_out[0] = '\0';
	h->broken = QSC_CLAUSE_COUNT;
	h->seed = 0;
	h->gone = false;
	h->opened = false;
	record_clear(&h->record);
	result = run_item(h, index, migrates);
	record_freeze(&h->record);
	if (is_gone(h, result))
		result = gone(h, result);
	if (h->dev)
		(void)qsc_device_reset(h->dev);
	harness_let_go(h);
	h->opener = &h->options->device;
	report(h, &item, result, now_us() - start);
}

int qsc_check_run(const struct qsc_check_options *options, struct qsc_check_subject *subject,
		  struct qsc_error *err)
{
	struct qsc_check_options settings = *options;
	struct qsc_check_subject unused;
	struct harness h;
	int r;

	if (!subject)
		subject = &unused;
	settings.settle_us = settings.settle_us ? settings.settle_us : DEFAULT_SETTLE_US;
	settings.await_ms = settings.await_ms ? settings.await_ms : DEFAULT_AWAIT_MS;
	settings.walk_steps = settings.walk_steps ? settings.walk_steps : DEFAULT_WALK_STEPS;
	r = harness_init(&h, &settings);
	if (r)
		qsc_error_set(err, -r, NULL, "no memory to check with: %s", strerror(-r));
	else
		r = harness_survey(&h, subject, err);
	for (size_t i = 0; !r && i < NUM_ITEMS; i++)
		if (!settings.items || settings.items[i])
			try_item(&h, i, subject->migrates);
	harness_release(&h);
	return r;
}
