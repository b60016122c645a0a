"""Members of Anthropic requests that refer to objects of the account, name models, or hold the caller's own JSON.

tests/providers/anthropic/test_request_members.py compares these lists with the request types of the installed SDK: a
member that none of them has decided on fails it by name, so that an SDK release shows what is new.

Source: anthropic 2.14, request types of messages and batches, beta ones included; Anthropic API reference.
"""

from __future__ import annotations

from collections.abc import Mapping

from tornado_proxy.domain.errors import InvalidBody
from tornado_proxy.providers.shared.member_rules import MemberRules, split_names

#: Members whose value is an id of an object, a list of ids, or an object with an `id`.
REFERENCES = frozenset({"container", "file_id", "previous_message_id"})

#: No member refers to an object in one form and holds something else in another.
REFERENCE_OBJECTS: frozenset[str] = frozenset()

#: Members that hold the caller's own JSON: a tool's schema, a tool call's input, citations of the provider.
OPAQUE = frozenset({"citations", "input", "input_examples", "input_schema", "metadata", "properties", "schema"})

#: Members that name a model: each must be one of those that admission has checked.
MODELS = frozenset({"model"})

#: Members that declare or select tools; hosted tools have spends of their own.
TOOLS = split_names(
    """
    mcp_servers skills tool_changes tool_choice tool_configuration tool_references tools toolset_name
    """
)

#: Members that select a price or a quantity; the endpoints' parsers decide on each.
PRICES = split_names(
    """
    betas bill_to billing_policy cache_control context_management effort fallback_credit_token fallbacks
    inference_geo max_uses output_config service_tier speed stream task_budget ttl
    """
)

#: Members that name no object or model and move no price.
NEUTRAL = split_names(
    """
    active allowed_callers allowed_domains allowed_tools authorization_token block_binding blocked_domains
    budget_tokens caching caller cited_text city clear_at clear_at_least clear_tool_inputs client_tool_results
    close_tab compaction configs content context country cursor_position custom_id data default_config
    defer_loading definition description diagnostics disable_parallel_tool_use display display_height_px
    display_number display_width_px document_index document_title double_click download_id eager_input_streaming
    edits enable_zoom enabled encrypted_content encrypted_index encrypted_stdout end_block_index end_char_index
    end_page_number error error_code error_message exclude_tools file_type file_upload find form_input format
    from get_page_text hold_key hover id instructions is_error is_file_update javascript_exec keep key
    left_click left_click_drag left_mouse_down left_mouse_up lines list_tabs max_characters max_content_tokens
    max_tokens mcp_server_name media_type messages middle_click mode mouse_move name navigate new_lines
    new_start new_tab num_lines old_lines old_start oversized_image page_age params path pause_after_compaction
    prefix_mismatch_behavior read_console read_network read_page region remaining requests required
    response_inclusion retrieved_at return_code right_click role screenshot scroll scroll_to search_result_index
    server_name server_tool_results signature size_bytes skill_id source start_block_index start_char_index
    start_line start_page_number state_changes stderr stdout stop_reason stop_sequences strict switch_tab system
    tab_id tabs text thinking thread timezone title to token tool tool_id tool_name tool_use_id total
    total_lines transformations trigger triple_click type url url_sources use_cache user_id user_input
    user_location user_profile_id value version wait workspace_id zoom
    """
)

#: Members that hold the text of a prompt or data, which no parser reads (HttpEndpoint.content_members).
CONTENT = frozenset({b"content", b"data", b"description", b"signature", b"system", b"text", b"thinking"})

#: Output of code execution that a client sends back: it names files that the provider created in the container, and
#: does not look them up.
_OUTPUT_TYPES = frozenset({"bash_code_execution_output", "code_execution_output"})


def find_item_reference(item: Mapping[str, object]) -> str | None:
    """Return the id of a custom skill; skills of Anthropic itself, such as "xlsx", belong to every account.

    Raises:
        InvalidBody: the id is no text.
    """
    skill_id = item.get("skill_id")
    if skill_id is not None and not isinstance(skill_id, str):
        raise InvalidBody('"skill_id" must be an id', param="skill_id")
    return None if item.get("type") == "anthropic" else skill_id


def repeats_output(item: Mapping[str, object]) -> bool:
    """Return True for output of code execution that a client sends back."""
    kind = item.get("type")
    return isinstance(kind, str) and kind in _OUTPUT_TYPES


RULES = MemberRules(
    references=REFERENCES,
    item_members=frozenset({"skill_id"}),
    reference_objects=REFERENCE_OBJECTS,
    opaque=OPAQUE,
    item_reference=find_item_reference,
    skip=repeats_output,
)
