--- NumPy's files: .npy, one array, and .npz, a ZIP of several.
--
-- The formats: numpy.lib.format (https://numpy.org/doc/stable/reference/
-- generated/numpy.lib.format.html) and PKWARE's APPNOTE.TXT 6.3. A file is
-- not believed: what its headers claim is compared with its size before
-- anything is allocated, and names in it never become names of files.
--
-- Functions return nil and a message for what can be wrong with a file; save
-- and load alone raise it, so that its position is their caller's.
local core = require "autodiff.core"
local args = require "autodiff.args"

local M = {}

local kernel = core.npy
-- Absent in a host that has not opened them.
local io, os, utf8 = io, os, utf8

local MAGIC <const> = "\x93NUMPY"
local HEADER_MOST <const> = 1 << 20 -- bytes of a header; an array's has some 100

-- What fits no 32 or 16 bits is written as ZIP64. Tests lower these.
M.limit = 0xffffffff
M.limit_entries = 0xffff

---------------------------------------------------------------------------
-- Headers of .npy

-- As numpy.save writes it: with room for the first dimension to grow to 21
-- digits, and then to a multiple of 64 bytes.
local function npyheader(shape)
  local tuple = #shape == 1 and shape[1] .. "," or table.concat(shape, ", ")
  local text = ("{'descr': '<f8', 'fortran_order': False, 'shape': (%s), }"):format(tuple)
  if shape[1] then text = text .. (" "):rep(21 - #tostring(shape[1])) end
  local length = 10 + #text + 1
  text = text .. (" "):rep(64 - length % 64) .. "\n"
  return MAGIC .. "\1\0" .. ("<s2"):pack(text)
end

local kinds <const> = {
  c = "complex numbers", O = "Python objects", S = "strings", a = "strings", U = "strings",
  M = "dates", m = "times", V = "raw data", f = "floats of that size",
}

local sizes <const> = {
  f2 = 2, f4 = 4, f8 = 8, i1 = 1, i2 = 2, i4 = 4, i8 = 8, u1 = 1, u2 = 2, u4 = 4, u8 = 8, b1 = 1,
}

-- "<f8": {letter=, size=, big=}
local function dtype(text)
  local order, name = text:match "^([<>=|]?)(.*)$"
  local letter, size = name:sub(1, 1), sizes[name]
  if not size then
    local kind = kinds[letter]
    return nil, ("dtype '%s'%s cannot be read, only real numbers"):format(text,
      kind and " (" .. kind .. ")" or "")
  end
  local big = order == ">"
  if order == "=" or order == "|" or order == "" then big = ("=I2"):pack(1) == "\0\1" end
  return { letter = letter, size = size, big = big }
end

-- "2, 3": {2, 3}
local function tuple(text)
  local shape, at = {}, 1
  if text:find "^%s*$" then return shape end
  while at <= #text do
    local digits, comma, after = text:match("^%s*(%d+)L?%s*(,?)()", at)
    if not digits then return nil end
    local n = math.tointeger(tonumber(digits))
    if not n then return nil end
    shape[#shape + 1] = n
    if comma == "" and (after <= #text or #shape == 1) then return nil end
    at = after
    if text:find("^%s*$", at) then break end
  end
  return shape
end

-- The dictionary of a header, which is a Python literal.
local function parse(text)
  local found = {}
  local at = text:match "^%s*{()"
  while at do
    local stop = text:match("^%s*}%s*()$", at)
    if stop then break end
    local key, value, from
    key, from = text:match("^%s*'([%w_]+)'%s*:%s*()", at)
    if not key then key, from = text:match('^%s*"([%w_]+)"%s*:%s*()', at) end
    if not key or found[key] ~= nil then return nil end
    if key == "descr" then
      value, at = text:match("^'([^']*)'()", from)
      if not value then value, at = text:match('^"([^"]*)"()', from) end
      if not value and text:find("^%[", from) then -- fields, each with a dtype
        value, at = text:match("^(%b[])()", from)
      end
    elseif key == "fortran_order" then
      value, at = text:match("^(%a+)()", from)
      if value ~= "True" and value ~= "False" then return nil end
    elseif key == "shape" then
      value, at = text:match("^%(([^()]*)%)()", from)
      value = value and tuple(value)
    end
    if not value then return nil end
    found[key] = value
    at = text:match("^%s*,()", at) or text:match("^%s*()}", at)
  end
  if not (at and found.descr and found.fortran_order and found.shape) then return nil end
  return found
end

-- The contents of a source: an array or a number.
local function readnpy(source)
  local start, e = source:read(8)
  if not start then return nil, e end
  if start:sub(1, 6) ~= MAGIC then return nil, "it does not begin as a .npy file does" end
  local major, minor = start:byte(7, 8)
  if major < 1 or major > 3 or minor ~= 0 then
    return nil, ("version %d.%d of the format is not known"):format(major, minor)
  end
  local form = major == 1 and "<I2" or "<I4"
  local packed
  packed, e = source:read(string.packsize(form))
  if not packed then return nil, e end
  local length = form:unpack(packed)
  if length > HEADER_MOST then return nil, ("a header of %d bytes"):format(length) end
  local text
  text, e = source:read(length)
  if not text then return nil, e end
  local header = parse(text)
  if not header then return nil, "the header cannot be understood" end
  local kind
  kind, e = dtype(header.descr)
  if not kind then return nil, e end

  local shape = header.shape
  if #shape > 8 then
    return nil, ("an array of %d dimensions (at most 8 are possible)"):format(#shape)
  end
  local count, empty = kind.size, false
  for _, n in ipairs(shape) do empty = empty or n == 0 end
  if empty then
    count = 0
  else
    for _, n in ipairs(shape) do
      if count > math.maxinteger // n then
        count = math.maxinteger
        break
      end
      count = count * n
    end
  end
  if count ~= source:left() then
    return nil, ("shape (%s) of '%s' takes %s%d bytes, and there are %d"):format(
      table.concat(shape, ", "), header.descr, count == math.maxinteger and "more than " or "",
      count, source:left())
  end
  local scalar = #shape == 0
  local a
  a, e = source:array(kind.letter, kind.size, kind.big, header.fortran_order == "True",
    scalar and { 1 } or shape)
  if not a then return nil, e end
  local crc
  crc, e = source:finish()
  if not crc then return nil, e end
  return scalar and a[1] or a, crc
end

---------------------------------------------------------------------------
-- ZIP

local LOCAL <const> = "<I4I2I2I2I2I2I4I4I4I2I2"
local ENTRY <const> = "<I4I2I2I2I2I2I2I4I4I4I2I2I2I2I2I4I4"
local END <const> = "<I4I2I2I2I2I4I4I2"
local END64 <const> = "<I4I8I2I2I4I4I8I8I8I8"
local LOCATOR <const> = "<I4I4I8I4"
local LOCAL_SIG <const>, ENTRY_SIG <const>, END_SIG <const> = 0x04034b50, 0x02014b50, 0x06054b50
local END64_SIG <const>, LOCATOR_SIG <const> = 0x06064b50, 0x07064b50
local DAY <const> = 1 << 5 | 1 -- 1980-01-01, so that the same arrays make the same file

local function at(file, position, n)
  if not file:seek("set", position) then return nil end
  local text = file:read(n)
  return text and #text == n and text or nil
end

-- Sizes or an offset that the field in ZIP's first form is too small for.
local function wide(extra, ...)
  local values, from = { ... }, 1
  while from + 3 <= #extra do
    local id, length = ("<I2I2"):unpack(extra, from)
    if id == 1 then
      local pos, stop = from + 4, math.min(from + 4 + length, #extra + 1)
      for i, v in ipairs(values) do
        if v == 0xffffffff then
          if pos + 8 > stop then return nil end
          values[i], pos = ("<i8"):unpack(extra, pos)
          if values[i] < 0 then return nil end
        end
      end
      break
    end
    from = from + 4 + length
  end
  return table.unpack(values)
end

-- Where the directory is and how many entries it has.
local function directory(file, size)
  local most = math.min(size, 22 + 0xffff)
  local tail = at(file, size - most, most)
  if not tail then return nil end
  local from
  for i = #tail - 21, 1, -1 do -- the comment at the end may be any bytes
    if tail:sub(i, i + 3) == "PK\5\6" and ("<I2"):unpack(tail, i + 20) == #tail - i - 21 then
      from = i
      break
    end
  end
  if not from then return nil end
  local _, disk, first, here, total, length, offset = END:unpack(tail, from)
  local stop = size - most + from - 1
  local text = stop >= 20 and at(file, stop - 20, 20)
  if text then
    local sig, _, place, disks = LOCATOR:unpack(text)
    if sig == LOCATOR_SIG then
      if place < 0 or place > stop - 20 - 56 or disks > 1 then return nil end
      local record = at(file, place, 56)
      if not record then return nil end
      sig, _, _, _, disk, first, here, total, length, offset = END64:unpack(record)
      if sig ~= END64_SIG then return nil end
      stop = place
    end
  end
  if disk ~= 0 or first ~= 0 or here ~= total or length < 0 or offset < 0 then return nil end
  -- each comparison by itself, since a sum might overflow
  if length > stop or offset ~= stop - length or total < 0 or total > length // 46 then
    return nil
  end
  return offset, length, total
end

-- The list of members, in the order in which they lie in the file.
local function members(file, size)
  local offset, length, total = directory(file, size)
  local text = offset and at(file, offset, length)
  if not text then return nil, "the ZIP directory is damaged" end
  local list, from = {}, 1
  for i = 1, total do
    if from + 45 > #text then return nil, "the ZIP directory is damaged" end
    local sig, _, _, flags, method, _, _, crc, csize, usize, nname, nextra, ncomment, _, _, _,
      place = ENTRY:unpack(text, from)
    local after = from + 46 + nname + nextra + ncomment
    if sig ~= ENTRY_SIG or after > #text + 1 then return nil, "the ZIP directory is damaged" end
    local name = text:sub(from + 46, from + 45 + nname)
    usize, csize, place = wide(text:sub(from + 46 + nname, from + 45 + nname + nextra),
      usize, csize, place)
    if not usize then return nil, "the ZIP directory is damaged" end
    list[i] = { name = name, flags = flags, method = method, crc = crc, csize = csize,
      usize = usize, place = place }
    from = after
  end
  if from ~= #text + 1 then return nil, "the ZIP directory is damaged" end
  table.sort(list, function(a, b) return a.place < b.place end)

  -- Behind one another; else few bytes could stand for any number of arrays.
  local free = 0
  for _, m in ipairs(list) do
    local head = m.place >= free and m.place <= offset - 30 and at(file, m.place, 30)
    if not head then return nil, ("member '%s' is not where it should be"):format(m.name) end
    local sig, _, flags, method, _, _, _, _, _, nname, nextra = LOCAL:unpack(head)
    m.data = m.place + 30 + nname + nextra
    if sig ~= LOCAL_SIG or method ~= m.method or m.data > offset or m.csize > offset - m.data
      or at(file, m.place + 30, nname) ~= m.name then
      return nil, ("member '%s' is not where it should be"):format(m.name)
    end
    if (flags | m.flags) & 1 ~= 0 then
      return nil, ("member '%s' is encrypted"):format(m.name)
    end
    free = m.data + m.csize
  end
  return list
end

local function readmember(file, m)
  if m.method ~= 0 and m.method ~= 8 then
    return nil, ("compressed by method %d, which cannot be read"):format(m.method)
  end
  -- DEFLATE's best is 258 bytes for two bits
  if m.method == 0 and m.csize ~= m.usize or m.usize // 1032 > m.csize then
    return nil, ("%d bytes are said to hold %d"):format(m.csize, m.usize)
  end
  if not file:seek("set", m.data) then return nil, "the file is too short" end
  local source, e = kernel.source(file, m.method == 8, m.csize, m.usize)
  if not source then return nil, e end
  local value, crc = readnpy(source)
  if not value then return nil, crc end
  if crc ~= m.crc then return nil, "the CRC-32 is wrong" end
  return value
end

local function readnpz(file, size)
  local list, e = members(file, size)
  if not list then return nil, e end
  local result, positions = {}, 0
  for _, m in ipairs(list) do
    local key = m.name:gsub("%.npy$", "")
    if result[key] ~= nil then return nil, ("two members are called '%s'"):format(key) end
    local value
    value, e = readmember(file, m)
    if not value then return nil, ("member '%s': %s"):format(m.name, e) end
    result[key] = value
  end
  -- What savez was given without a name, it counts from 0.
  while result["arr_" .. positions] ~= nil do
    local key = "arr_" .. positions
    positions = positions + 1
    result[positions], result[key] = result[key], nil
  end
  return result
end

local function entries(value)
  local list, taken = {}, {}
  for key, x in next, value do
    local name = key
    if math.type(key) == "integer" and key >= 1 and key <= #value then
      name = "arr_" .. key - 1
    elseif type(key) ~= "string" then
      return nil, ("key %s: arrays in a table have a name, or a position in a list"):format(
        tostring(key))
    end
    if not core.type(x) then
      return nil, ("field '%s': array or number expected, got %s"):format(key, type(x))
    end
    if #name > 0xfff0 then return nil, "a key has more than 65520 bytes" end
    if name:find("\0", 1, true) or utf8 and not utf8.len(name) then
      return nil, ("field %q: a name in a file has to be UTF-8, without zeros"):format(name)
    end
    if taken[name] then return nil, ("two arrays are called '%s'"):format(name) end
    taken[name] = true
    local v = core.value(x)
    list[#list + 1] = { name = name .. ".npy", position = type(key) == "number" and key or nil,
      value = type(v) == "number" and v + 0.0 or v }
  end
  table.sort(list, function(a, b)
    if a.position and b.position then return a.position < b.position end
    if a.position or b.position then return a.position ~= nil end
    return a.name < b.name
  end)
  return list
end

---------------------------------------------------------------------------
-- Writing

local shapeof = core.array.shapeof

-- The number of bytes written, or nil and a message.
local function writenpy(file, value)
  local shape = shapeof(value) or {}
  local header = npyheader(shape)
  local ok, e = kernel.write(file, header)
  if ok then ok, e = kernel.write(file, value) end
  if not ok then return nil, e end
  local n = 1
  for _, d in ipairs(shape) do n = n * d end
  return #header + 8 * n
end

local function writenpz(file, list)
  local place, records = 0, {}
  local function put(text)
    local ok, e = kernel.write(file, text)
    place = place + #text
    return ok, e
  end
  local limit = M.limit
  for i, m in ipairs(list) do
    local shape = shapeof(m.value) or {}
    local header = npyheader(shape)
    local size = 8
    for _, d in ipairs(shape) do size = size * d end
    size = size + #header
    local crc = kernel.crc(kernel.crc(0, header), m.value)
    local flags = m.name:find "[\128-\255]" and 0x800 or 0
    local large, far = size >= limit, place >= limit
    local short = large and 0xffffffff or size
    local extra = large and ("<I2I2I8I8"):pack(1, 16, size, size) or ""
    local start = place
    local ok, e = put(LOCAL:pack(LOCAL_SIG, large and 45 or 20, flags, 0, 0, DAY, crc, short,
      short, #m.name, #extra) .. m.name .. extra)
    if not ok then return nil, e end
    local n
    n, e = writenpy(file, m.value)
    if not n then return nil, e end
    place = place + n
    extra = (large and ("<I8I8"):pack(size, size) or "") .. (far and ("<I8"):pack(start) or "")
    if extra ~= "" then extra = ("<I2s2"):pack(1, extra) end
    local version = (large or far) and 45 or 20
    -- made on Unix, where it is a file that all may read
    records[i] = ENTRY:pack(ENTRY_SIG, 3 << 8 | version, version, flags, 0, 0, DAY, crc, short,
      short, #m.name, #extra, 0, 0, 0, 0x81a4 << 16, far and 0xffffffff or start) .. m.name .. extra
  end
  local start, count = place, #records
  local ok, e = put(table.concat(records))
  if not ok then return nil, e end
  local length, stop = place - start, place
  if count >= M.limit_entries or start >= limit or length >= limit then
    ok, e = put(END64:pack(END64_SIG, 44, 3 << 8 | 45, 45, 0, 0, count, count, length, start)
      .. LOCATOR:pack(LOCATOR_SIG, 0, stop, 1))
    if not ok then return nil, e end
    count = math.min(count, 0xffff)
    if length >= limit then length = 0xffffffff end
    if start >= limit then start = 0xffffffff end
  end
  return put(END:pack(END_SIG, 0, 0, count, count, length, start, 0))
end

-- Removes what is not finished, however that comes about.
local function abandon(state)
  if state.file then state.file:close() end
  if state.temporary then os.remove(state.temporary) end
end

-- The file is written beside the path and takes its place when it is whole.
local function write(path, list, value)
  local state <close> = setmetatable({ file = false, temporary = false }, { __close = abandon })
  local e
  state.file, state.temporary = kernel.create(path)
  if not state.file then
    e, state.temporary = state.temporary, false
    return nil, e
  end
  local ok
  if list then
    ok, e = writenpz(state.file, list)
  else
    ok, e = writenpy(state.file, value)
  end
  if not ok then return nil, path .. ": " .. e end
  local file = state.file
  state.file = false
  ok, e = file:close() -- which may be when the disk turns out to be full
  if not ok then return nil, path .. ": " .. e end
  if state.temporary then
    ok, e = os.rename(state.temporary, path)
    if not ok then return nil, path .. ": " .. e end
    state.temporary = false
  end
  return true
end

---------------------------------------------------------------------------

local function badpath(path)
  if type(path) ~= "string" then return ("string expected, got %s"):format(type(path)) end
  if path:find("\0", 1, true) then return "a path cannot contain zeros" end
end

local needed <const> = "%s: the host has not opened Lua's libraries io and os"

--- Writes an array (or a number) to a file, or a table of them.
function M.save(path, value)
  local wrong = badpath(path)
  if wrong then args.bad(1, "save", wrong) end
  local list
  if type(value) == "table" then
    list, wrong = entries(value)
    if not list then args.bad(2, "save", wrong) end
  elseif core.type(value) then
    value = core.value(value)
    if type(value) == "number" then value = value + 0.0 end
  else
    args.bad(2, "save", ("array expected, got %s"):format(type(value)))
  end
  if not (io and os) then error(needed:format "save", 2) end
  local ok, e = write(path, list, value)
  if not ok then error("save: " .. e, 2) end
end

local function read(path)
  local file <close>, e = io.open(path, "rb")
  if not file then return nil, e end
  local start
  start, e = file:read(6)
  if not start then return nil, ("%s: %s"):format(path, e or "the file is empty") end
  local size
  size, e = file:seek "end"
  if not size then return nil, ("%s: %s"):format(path, e) end
  local value
  if start == MAGIC then
    file:seek("set", 0)
    local source = kernel.source(file, false, size, size)
    value, e = readnpy(source)
  elseif start:find "^PK\3\4" or start:find "^PK\5\6" then
    value, e = readnpz(file, size)
  else
    e = "it is neither a .npy nor a .npz file"
  end
  if value == nil then return nil, ("%s: %s"):format(path, e) end
  return value
end

--- What a file has: an array, a number, or a table of them.
function M.load(path)
  local wrong = badpath(path)
  if wrong then args.bad(1, "load", wrong) end
  if not (io and os) then error(needed:format "load", 2) end
  local value, e = read(path)
  if value == nil then error("load: " .. e, 2) end
  return value
end

return M
