/* SPDX-License-Identifier: MIT */
/*
 * What a person sees while the demonstration runs, and its verdict. On a terminal one line changes
 * all the time; elsewhere a line is printed every second and whenever something has happened.
 */
#include <inttypes.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "demo.h"
#include "text.h"
#include "tool.h"

#define LIVE_US	 100000ULL
#define PLAIN_US 1000000ULL

/* ---- lines ---- */

static void close_line(struct demo_show *show)
{
	if (show->line_open)
		(void)fputs("\r\033[K", stdout);
	show->line_open = false;
}

void demo_show_note(struct demo_show *show, const char *fmt, ...)
{
	va_list args;

	if (show->quiet)
		return;
	close_line(show);
	va_start(args, fmt);
	(void)vprintf(fmt, args);
	va_end(args);
	(void)putchar('\n');
	(void)fflush(stdout);
}

void demo_show_begin(struct demo_show *show, const struct demo_config *config)
{
	char memory[32], state[32];

	show->quiet = config->json;
	if (show->quiet)
		return;
	view_style_detect(&show->style, STDOUT_FILENO);
	printf("%u device%s of %s in a chain, %s of memory, %u migration%s between side A and side "
	       "B\n\n",
	       config->tenant.devices, config->tenant.devices == 1 ? "" : "s",
	       tool_size_text(config->tenant.state_bytes, state),
	       tool_size_text(config->tenant.memory_bytes, memory), config->migrations,
	       config->migrations == 1 ? "" : "s");
	(void)fflush(stdout);
}

/* ---- progress ---- */

/* "filling 62 %", or blocks and their rate. */
static void describe_tenant(const struct demo_show *show, const struct demo_config *config,
			    const struct tenant_live *live, bool brief, char *text, size_t size)
{
	uint64_t blocks = atomic_load(&live->blocks);
	uint32_t permille = atomic_load(&live->permille);
	char count[TEXT_SIZE], rate[TEXT_SIZE];
	double bytes = show->rate * (double)tenant_block_bytes(&config->tenant);

	switch (atomic_load(&live->activity)) {
	case TENANT_FILLING:
		(void)snprintf(text, size, "filling memory and devices, %u %%", permille / 10);
		break;
	case TENANT_VERIFYING:
		(void)snprintf(text, size, "comparing what was kept, %u %%", permille / 10);
		break;
	case TENANT_STREAMING:
		if (brief)
			(void)snprintf(text, size, "%.0f blocks/s", show->rate);
		else
			(void)snprintf(text, size, "%s blocks, %.0f blocks/s, %s/s",
				       text_count(count, blocks), show->rate,
				       text_bytes(rate, (uint64_t)bytes));
		break;
	case TENANT_FINISHED:
		(void)snprintf(text, size, "finished");
		break;
	default:
		(void)snprintf(text, size, "starting");
	}
}

static void describe_engine(const struct demo_live *live, uint32_t migration, char *text,
			    size_t size)
{
	const char *phase = atomic_load(&live->phase);
	uint32_t pass = atomic_load(&live->pass);
	uint64_t bytes_sent = atomic_load(&live->bytes_sent);
	char sent[TEXT_SIZE], left[TEXT_SIZE], passes[24] = "";

	*text = 0;
	if (!phase)
		return;
	if (pass)
		(void)snprintf(passes, sizeof(passes), " pass %u", pass);
	/* The engine counts what a round has moved at its end. */
	if (!bytes_sent)
		(void)snprintf(text, size, "migration %u: %s%s, ", migration, phase, passes);
	else
		(void)snprintf(text, size, "migration %u: %s%s, %s sent, %s left, ", migration,
			       phase, passes, text_bytes(sent, bytes_sent),
			       text_bytes(left, atomic_load(&live->bytes_remaining)));
}

static void measure_rate(struct demo_show *show, const struct tenant_live *live,
			 uint64_t elapsed_us)
{
	uint64_t blocks = atomic_load(&live->blocks);
	double us = (double)(elapsed_us - show->last_us);

	if (blocks >= show->last_blocks && us > 0) {
		double rate = (double)(blocks - show->last_blocks) * 1e6 / us;

		show->rate = show->rate > 0 && show->style.live ? 0.7 * show->rate + 0.3 * rate
								: rate;
	}
	show->last_blocks = blocks;
	show->last_us = elapsed_us;
}

void demo_show_tick(struct demo_show *show, const struct demo_config *config, uint64_t elapsed_us,
		    uint32_t migration, enum demo_side owner, const struct demo_live *live)
{
	char tenant[96], engine[128], line[256];
	int room = (int)show->style.width - 1;

	if (show->quiet || elapsed_us - show->last_us < (show->style.live ? LIVE_US : PLAIN_US))
		return;
	measure_rate(show, &live[owner].tenant, elapsed_us);
	describe_engine(&live[owner], migration, engine, sizeof(engine));
	describe_tenant(show, config, &live[owner].tenant, *engine, tenant, sizeof(tenant));
	(void)snprintf(line, sizeof(line), "%6.1f s  %c  %s%s", (double)elapsed_us / 1e6,
		       demo_side_name(owner), engine, tenant);
	if (show->style.live)
		printf("\r%.*s\033[K", room, line);
	else
		printf("%s\n", line);
	show->line_open = show->style.live;
	(void)fflush(stdout);
}

void demo_show_moved(struct demo_show *show, const struct demo_migration *migration)
{
	char took[TEXT_SIZE], stop[TEXT_SIZE];
	const char *arrow = show->style.utf8 ? "→" : "->";
	char from = demo_side_name(migration->from);

	if (migration->failed || !migration->ended) {
		demo_show_note(show, "%6.1f s  migration %u failed",
			       (double)migration->end_us / 1e6, migration->number);
		return;
	}
	demo_show_note(
		show, "%6.1f s  migration %u, %c %s %c, took %s and stopped the tenant for %s",
		(double)migration->end_us / 1e6, migration->number, from, arrow,
		from == 'A' ? 'B' : 'A', text_time(took, migration->end_us - migration->start_us),
		text_time(stop, migration->downtime_us));
}

/* ---- the verdict ---- */

static void verdict_counts(const struct demo_show *show, const struct demo_outcome *outcome)
{
	const struct tenant_result *result = &outcome->result;
	char a[TEXT_SIZE], b[TEXT_SIZE], c[TEXT_SIZE];
	uint64_t min, median, max;
	uint32_t i;

	printf("  blocks       %s of %s each through %u device%s and back (%s)\n",
	       text_count(a, result->blocks), tool_size_text(outcome->block_bytes, b),
	       outcome->config.tenant.devices, outcome->config.tenant.devices == 1 ? "" : "s",
	       text_bytes(c, result->bytes_moved));
	printf("  untouched    %s of memory and device state compared at the end\n",
	       text_bytes(a, result->bytes_kept));
	printf("  bytes wrong  %s\n", text_count(a, result->bytes_wrong));
	printf("  interrupts   %s arrived, %s lost, %s doubled\n",
	       text_count(a, result->interrupts), text_count(b, result->interrupts_lost),
	       text_count(c, result->interrupts_doubled));
	if (result->retried)
		printf("  retried      %s transfers that met a revoked peer mapping\n",
		       text_count(a, result->retried));
	printf("  contract     ");
	for (i = 0; i < outcome->num_violations; i++)
		printf("%s%s", i ? ", " : "broken: ", outcome->violations[i]);
	printf("%s", outcome->num_violations ? "; " : "no clause broken: ");
	for (i = 0; i < outcome->num_watched; i++)
		printf("%s%s", i ? ", " : "", outcome->watched[i]);
	printf(" watched");
	demo_downtimes(outcome, &min, &median, &max);
	printf("\n  downtime     ");
	if (max)
		printf("%s shortest, %s median, %s longest\n", text_time(a, min),
		       text_time(b, median), text_time(c, max));
	else
		printf("no migration succeeded\n");
}

static void verdict_error(const struct demo_outcome *outcome)
{
	const struct demo_error *error = &outcome->error, *follows = &outcome->follows;

	(void)fflush(stdout);
	if (error->number) {
		const char *clause = *error->clause ? error->clause : NULL;
		struct qsc_error err = {.number = error->number, .clause = clause};

		(void)snprintf(err.text, sizeof(err.text), "%s", error->text);
		(void)tool_fail_error(&err, "%s", outcome->failed_at);
		if (follows->number)
			(void)fprintf(stderr, "  then: %s\n", follows->text);
	} else {
		(void)tool_fail("%s", outcome->has_result && !outcome->result.blocks
					      ? "no block went through the chain"
					      : "something was lost on the way: see the counts");
	}
	if (*outcome->advice)
		(void)fprintf(stderr, "  now:  %s\n", outcome->advice);
}

void demo_show_outcome(struct demo_show *show, const struct demo_outcome *outcome)
{
	const char *good = show->style.color ? "\033[1;32m" : "",
		   *bad = show->style.color ? "\033[1;31m" : "";
	const char *plain = show->style.color ? "\033[0m" : "";
	char total[TEXT_SIZE];
	uint32_t i;

	if (!show->quiet) {
		close_line(show);
		for (i = 0; i < outcome->config.migrations && outcome->migrations; i++) {
			if (outcome->migrations[i].begun)
				demo_show_timeline(show, outcome, &outcome->migrations[i]);
		}
		/* A run that did not come so far as to run anything has only its error to tell. */
		if (outcome->begun)
			printf("\n%s%s%s after %s\n", outcome->ok ? good : bad,
			       outcome->ok ? "Nothing was lost" : "Failed", plain,
			       text_time(total, outcome->total_us));
		if (outcome->has_result)
			verdict_counts(show, outcome);
	}
	if (!outcome->ok)
		verdict_error(outcome);
}
