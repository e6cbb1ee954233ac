/* SPDX-License-Identifier: MIT */
/* The parts of the HTML report: view_html.c writes the page, view_svg.c its drawings. */
#ifndef VIEW_HTML_H
#define VIEW_HTML_H

#include <stdio.h>

#include "move.h"

/* Text from elsewhere, so that it is text in an element and in a quoted attribute. */
void view_html_text(FILE *out, const char *text);

/* How a phase looks: the class that view_html.c gives a colour to, and what it stands for. */
struct view_html_look {
	const char *class;
	const char *meaning;
};
/* NULL after the last. */
const struct view_html_look *view_html_look(unsigned int i);

/* Whether there is a predicted stop to be drawn: a destination predicts nothing. */
bool view_html_predicts(const struct move *move);

/* A stretch of time: the whole set, every device, the stop marked. */
struct view_html_lanes {
	const struct move *move;
	const char *id;	   /* of the drawing on the page */
	const char *title; /* of it, for those who do not see it */
	uint64_t start_us;
	uint64_t duration_us;
};
/* -ENOMEM. */
int view_html_lanes(FILE *out, const struct view_html_lanes *lanes);
/* What was moved and what was left, and the predicted downtime beside its limit, over all of it. */
void view_html_curves(FILE *out, const struct move *move);

#endif
