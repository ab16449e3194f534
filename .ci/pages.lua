-- lua5.4 .ci/pages.lua DIRECTORY MANUAL: what LDoc reads, from autodiff.docs.
--
-- LDoc wants comments in a source file, and the names of this library are
-- made in C and in loops. So this writes a file that has nothing but comments,
-- and the configuration beside it; autodiff.docs stays the one source.

local docs = require "autodiff.docs"
local directory, manual = arg[1], arg[2]
assert(manual, "usage: pages.lua DIRECTORY MANUAL")

local sorted = {}
for name in pairs(docs) do sorted[#sorted + 1] = name end
table.sort(sorted, function(a, b) return docs[a].order < docs[b].order end)

local out = {}
local function put(line, ...) out[#out + 1] = line:format(...) end

-- Each line of a text as a comment.
local function comment(text, indent)
  for line in (text .. "\n"):gmatch "(.-)\n" do put("-- %s%s", indent or "", line) end
end

-- Text is Markdown to LDoc: what means something there is kept from it,
-- except `code`, in which it finds the names of functions by itself.
local function plain(text)
  local parts = {}
  for words, code in (text .. "``"):gmatch "([^`]*)(`[^`]*`)" do
    parts[#parts + 1] = words:gsub("<", "&lt;"):gsub("[%*_%[%]^\\]", "\\%0")
    parts[#parts + 1] = code ~= "``" and code or nil
  end
  return table.concat(parts)
end

-- The parameters of a signature such as "grad(f[, argnums])".
local function parameters(sig)
  local inside = sig:match "%b()"
  if sig:find "{" then return put "-- @tparam table options" end
  if not inside then return end
  inside = inside:sub(2, -2):gsub(" or .*$", "")
  local optional = inside:find("[", 1, true) or math.huge
  for at, name in inside:gmatch "()([%a.][%w_.]*)" do
    put("-- @param%s %s", at > optional and "[opt]" or "", name)
  end
end

put "--- Automatic differentiation for Lua 5.4."
put "--"
put "-- `local ad = require \"autodiff\"`. What can be differentiated, how the"
put "-- parts fit together and what does not work is in the manual; this is the"
put "-- reference, by name. Every example is a program that the tests run."
put "-- @module autodiff"
put ""

local heading
for _, name in ipairs(sorted) do
  local doc = docs[name]
  if doc.section ~= heading then
    heading = doc.section
    put("--- %s", heading)
    put("-- @section %s", heading:gsub("%A+", "_"):lower())
    put ""
  end
  put("--- %s", plain(doc.text))
  if doc.sig:find "[({]" then
    put("-- @function %s", name)
    parameters(doc.sig)
  else
    put("-- @field %s", name)
  end
  put "-- @usage"
  comment(doc.example)
  put ""
end

local function write(name, text)
  local file <close> = assert(io.open(directory .. "/" .. name, "w"))
  file:write(text)
end

write("autodiff.lua", table.concat(out, "\n") .. "\n")
write("config.ld", ([[
project = "autodiff"
title = "autodiff"
description = "Automatic differentiation for Lua 5.4"
file = "autodiff.lua"
topics = { "%s" }
format = "discount"
backtick_references = true
sort = false
no_space_before_args = true
not_luadoc = true
]]):format(manual))
