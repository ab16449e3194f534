-- ad.save and ad.load: NumPy's files, to the bit, and files that are none.

local ad = require "autodiff"
local core = require "autodiff.core"
local npy = require "autodiff.npy"

local python
for _, name in ipairs { "python3", "/usr/bin/python3" } do
  if not python and os.execute(name .. " -c 'import numpy' 2>/dev/null") then python = name end
end

local directory
local function file(name) return directory .. "/" .. name end

local function bytes(path)
  local f <close> = assert(io.open(path, "rb"))
  return f:read "a"
end

local function store(text, name)
  local path = file(name or "test.npy")
  local f <close> = assert(io.open(path, "wb"))
  f:write(text)
  return path
end

local function decode(text) -- base64
  local digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
  local out, bits, n = {}, 0, 0
  for c in text:gmatch "[%w+/]" do
    bits, n = bits << 6 | digits:find(c, 1, true) - 1, n + 6
    if n >= 8 then
      n = n - 8
      out[#out + 1] = string.char(bits >> n & 255)
      bits = bits & (1 << n) - 1
    end
  end
  return table.concat(out)
end

-- np.savez_compressed(f, a=np.arange(60).reshape(3, 20) % 4, s=np.float32(1.5),
-- z=np.zeros((0, 2)))
local compressed = decode [[
UEsDBBQAAAAIAAAAIQBmJuIjVwAAAGACAAAFABQAYS5ucHkBABAAYAIAAAAAAABXAAAAAAAAAJvsF+obEMnIUMZQrZ6SWpxc
pG6loG6TaaGuo6Cell9UUpSYF59flJIKEndLzClOBYoXZyQWpAL5GsY6CkYGmjoKtQrkAi4GKGCE0kxQmpkBFYzKD015AFBL
AwQUAAAACAAAACEAJRPmXUYAAACEAAAABQAUAHMubnB5AQAQAIQAAAAAAAAARgAAAAAAAACb7BfqGxDJyFDGUK2eklqcXKRu
paBuk2airqOgnpZfVFKUmBefX5SSChJ3S8wpTgWKF2ckFqQC+RqaOgq1ChQBLgaGA/YAUEsDBBQAAAAIAAAAIQDN1lV3RgAA
AIAAAAAFABQAei5ucHkBABAAgAAAAAAAAABGAAAAAAAAAJvsF+obEMnIUMZQrZ6SWpxcpG6loG6TZqGuo6Cell9UUpSYF59f
lJIKEndLzClOBYoXZyQWpAL5GgY6CkaaOgq1CmQDLgBQSwECFAMUAAAACAAAACEAZibiI1cAAABgAgAABQAAAAAAAAAAAAAA
gAEAAAAAYS5ucHlQSwECFAMUAAAACAAAACEAJRPmXUYAAACEAAAABQAAAAAAAAAAAAAAgAGOAAAAcy5ucHlQSwECFAMUAAAA
CAAAACEAzdZVd0YAAACAAAAABQAAAAAAAAAAAAAAgAELAQAAei5ucHlQSwUGAAAAAAMAAwCZAAAAiAEAAAAA
]]

-- A file with a header of one's own.
local function made(header, data, version)
  local form = version == 1 and "<s2" or "<s4"
  return "\x93NUMPY" .. string.char(version, 0) .. form:pack(header) .. data
end

local function described(descr, shape, data, fortran, version)
  return made(("{'descr': '%s', 'fortran_order': %s, 'shape': %s, }\n"):format(descr,
    fortran and "True" or "False", shape), data, version or 1)
end

local function same(a, b) -- to the bit, NaNs too
  assert.same(a.shape, b.shape)
  local x, y = a:copy(), b:copy()
  assert.are.equal(core.npy.crc(0, x), core.npy.crc(0, y))
  local function flat(t, out)
    if type(t) == "number" then
      out[#out + 1] = ("<d"):pack(t)
    else
      for _, v in ipairs(t) do flat(v, out) end
    end
    return out
  end
  assert.are.equal(table.concat(flat(a:tolist(), {})), table.concat(flat(b:tolist(), {})))
end

local function refused(message, f, ...)
  local ok, e = pcall(f, ...)
  assert.is_false(ok, "no error: " .. message)
  assert.is_truthy(tostring(e):find(message, 1, true), e)
  return e
end

local function bad(message, text)
  local e = refused(message, ad.load, store(text))
  assert.is_truthy(e:find(file "test.npy", 1, true), e)
end

local function leftovers()
  local pipe <close> = assert(io.popen("ls -A '" .. directory .. "'"))
  return pipe:read "a"
end

setup(function()
  directory = os.tmpname()
  os.remove(directory)
  assert(os.execute("mkdir '" .. directory .. "'"))
end)

teardown(function() os.execute("rm -r '" .. directory .. "'") end)

local specials = {
  0.0, -0.0, 1.0, -2.5, math.huge, -math.huge, 0 / 0, -(0 / 0), 5e-324, 1e308, 0.1,
}

local function examples()
  local a = ad.array { { 1, 2, 3 }, { 4, 5, 6.5 } }
  return {
    a, ad.array(specials), ad.zeros(0), ad.zeros(3, 0, 2), ad.arange(1, 70000),
    a[{ {}, { 3, 1, -2 } }], a[2], ad.zeros(1, 2, 1, 2, 1, 2, 1, 2), ad.array { 7 },
  }
end

describe("ad.save and ad.load", function()
  it("give back what was saved, to the bit", function()
    for _, a in ipairs(examples()) do
      ad.save(file "a.npy", a)
      same(a, ad.load(file "a.npy"))
    end
    for _, x in ipairs { 3, 0.1, -math.huge } do
      ad.save(file "a.npy", x)
      assert.are.equal(x, ad.load(file "a.npy"))
      assert.are.equal("float", math.type(ad.load(file "a.npy")))
    end
  end)

  it("give back a table", function()
    local t = { weights = ad.ones(2, 3), bias = 0.5, ["größe/x.npy"] = ad.arange(1, 4), [""] = 1.0 }
    ad.save(file "t.npz", t)
    local got = ad.load(file "t.npz")
    for k, v in pairs(t) do
      if type(v) == "number" then assert.are.equal(v, got[k]) else same(v, got[k]) end
    end
    for k in pairs(got) do assert.is_not_nil(t[k]) end
    assert.are.equal("", leftovers():gsub("[at]%.np[yz]\n", ""))
  end)

  it("give back a list, and what has names beside it", function()
    ad.save(file "t.npz", { ad.ones(2), 3, ad.zeros(1), name = ad.arange(1, 2) })
    local got = ad.load(file "t.npz")
    assert.are.equal(3, #got)
    same(ad.ones(2), got[1])
    assert.are.equal(3.0, got[2])
    same(ad.arange(1, 2), got.name)
    assert.is_truthy(bytes(file "t.npz"):find("arr_2.npy", 1, true))
    ad.save(file "t.npz", { arr_1 = 5 }) -- no first one: a name
    assert.same({ arr_1 = 5.0 }, ad.load(file "t.npz"))
    ad.save(file "t.npz", {})
    assert.same({}, ad.load(file "t.npz"))
    local many = {}
    for i = 1, 12 do many[i] = i end
    ad.save(file "t.npz", many)
    assert.same(many, ad.load(file "t.npz"))
  end)

  it("write the same file each time", function()
    ad.save(file "t.npz", { b = 1, a = ad.ones(3), 5 })
    local first = bytes(file "t.npz")
    ad.save(file "t.npz", { 5, a = ad.ones(3), b = 1 })
    assert.are.equal(first, bytes(file "t.npz"))
  end)

  it("take the plain value of what is being differentiated", function()
    ad.grad(function(x)
      ad.save(file "v.npy", x)
      ad.save(file "v.npz", { x = x, y = ad.var(2) })
      return x[1]
    end)(ad.array { 3, 4 })
    same(ad.array { 3, 4 }, ad.load(file "v.npy"))
    same(ad.array { 3, 4 }, ad.load(file "v.npz").x)
    assert.are.equal(2.0, ad.load(file "v.npz").y)
  end)

  it("use ZIP64 where numbers do not fit", function()
    local limit, entries = npy.limit, npy.limit_entries
    npy.limit, npy.limit_entries = 150, 2
    finally(function() npy.limit, npy.limit_entries = limit, entries end)
    local t = { a = 1, b = ad.arange(1, 30), c = ad.eye(3), d = ad.zeros(0) }
    ad.save(file "z64.npz", t)
    local got = ad.load(file "z64.npz")
    assert.are.equal(1.0, got.a)
    same(t.b, got.b)
    same(t.c, got.c)
    same(t.d, got.d)
    local text = bytes(file "z64.npz")
    assert.is_truthy(text:find("PK\6\6", 1, true))
    if python then
      assert.is_true(os.execute(("%s -c 'import numpy as n; z = n.load(\"%s\");"
        .. "assert (z[\"b\"] == range(1, 31)).all() and z[\"a\"] == 1 and len(z.files) == 4'")
        :format(python, file "z64.npz")))
    end
    -- damage to what only these files have
    for i = #text - 97, #text - 22 do
      store(text:sub(1, i - 1) .. string.char(text:byte(i) ~ 0x55) .. text:sub(i + 1))
      local ok, e = pcall(ad.load, file "test.npy")
      assert.is_true(ok or e:find "^load: " ~= nil, e)
    end
  end)
end)

describe("ad.load", function()
  it("reads every real dtype in both orders of bytes", function()
    local cases = {
      { "f2", { "\0\x3c", "\0\xc0", "\1\0", "\xff\x03", "\0\x04", "\0\x7c", "\0\xfc", "\xff\x7b",
        "\0\x80" },
        { 1, -2, 2 ^ -24, 1023 * 2 ^ -24, 2 ^ -14, math.huge, -math.huge, 65504, -0.0 } },
      { "f4", "<f", { 1.5, -0.0, 2 ^ -149, math.huge } },
      { "f8", "<d", { 0.1, -0.0, 5e-324, -math.huge } },
      { "i1", "<i1", { 0, 127, -128, -1 } }, { "u1", "<I1", { 0, 255, 128 } },
      { "i2", "<i2", { 0, 32767, -32768, -2 } }, { "u2", "<I2", { 0, 65535, 256 } },
      { "i4", "<i4", { 1, 2147483647, -2147483648, -3 } }, { "u4", "<I4", { 1, 4294967295 } },
      { "i8", "<i8", { 1 << 53, math.mininteger, -1 } },
      { "u8", "<I8", { 1 << 53, 1, -1 }, { 2.0 ^ 53, 1, 2.0 ^ 64 } },
      { "b1", { "\0", "\1", "\2" }, { 0, 1, 1 } },
    }
    for _, case in ipairs(cases) do
      local form, values = case[2], case[#case]
      local items = {}
      for i, x in ipairs(case[3]) do
        items[i] = type(form) == "string" and form:pack(x) or form[i]
      end
      local function check(descr, data)
        local a = ad.load(store(described(descr, ("(%d,)"):format(#items), data)))
        for i, x in ipairs(values) do
          assert.are.equal(("<d"):pack(x), ("<d"):pack(a[i]), descr)
        end
      end
      local little = table.concat(items)
      for i, s in ipairs(items) do items[i] = s:reverse() end
      check("<" .. case[1], little)
      check(">" .. case[1], table.concat(items))
      if case[1]:find "1" then check("|" .. case[1], little) end
      check("=" .. case[1], ("=I2"):pack(1) == "\1\0" and little or table.concat(items))
    end
    local a = ad.load(store(described("<f2", "(2,)", "\1\x7e\1\xfe")))
    assert.is_true(a[1] ~= a[1] and a[2] ~= a[2])
  end)

  it("reads Fortran's order, and all versions", function()
    local data = ("<i1i1i1i1i1i1"):pack(1, 4, 2, 5, 3, 6)
    for version = 1, 3 do
      local a = ad.load(store(described("|i1", "(2, 3)", data, true, version)))
      assert.same({ { 1, 2, 3 }, { 4, 5, 6 } }, a:tolist())
      a = ad.load(store(described("|i1", "(6,)", data, true, version)))
      assert.same({ 1, 4, 2, 5, 3, 6 }, a:tolist())
    end
    local a = ad.load(store(described("|i1", "(1, 2, 3)", data, true)))
    assert.same({ { { 1, 2, 3 }, { 4, 5, 6 } } }, a:tolist())
    assert.are.equal(1.0, ad.load(store(described("|i1", "()", "\1", true))))
    same(ad.zeros(0, 4), ad.load(store(described("|i1", "(0, 4)", "", true))))
    a = ad.load(store(described("|i1", "(2, 3)", data, true)))
    a[{ 1, 2 }] = 9 -- the array is its own
    assert.same({ { 1, 9, 3 }, { 4, 5, 6 } }, a:tolist())
  end)

  it("reads headers as Python would", function()
    local data = ("<d"):pack(7)
    for _, header in ipairs {
      "{'descr':'<f8','fortran_order':False,'shape':(1,)}",
      "{ 'shape' : ( 1 , ) , \"fortran_order\" : False , \"descr\" : \"<f8\" , }   \n",
      "{'shape': (1L,), 'descr': '<f8', 'fortran_order': True}\n",
      "\n{'shape': (1,1,), 'descr': '<f8', 'fortran_order': True}",
    } do
      local a = ad.load(store(made(header, data, 1)))
      assert.are.equal(7.0, a.ndim == 1 and a[1] or a[{ 1, 1 }])
    end
  end)

  it("reads what is compressed", function()
    local got = ad.load(store(compressed))
    assert.same({ 3, 20 }, got.a.shape)
    for i = 1, 20 do assert.are.equal((i - 1) % 4 + 0.0, got.a[{ 2, i }]) end
    assert.are.equal(1.5, got.s)
    same(ad.zeros(0, 2), got.z)
  end)

  it("says what zlib is needed for when it is missing", function()
    -- something else by that name is found first
    store("", "libz.so.1")
    store(compressed)
    local pipe <close> = io.popen(("LD_LIBRARY_PATH='%s' lua5.4 -e 'local ad = require \"autodiff\""
      .. " print(pcall(ad.load, \"%s\"))' 2>&1"):format(directory, file "test.npy"))
    local text = pipe:read "a"
    os.remove(file "libz.so.1")
    assert.is_truthy(text:find("member 'a.npy': compressed: reading it takes zlib", 1, true), text)
    assert.is_truthy(text:find("zlib1g", 1, true))
  end)

  it("refuses files that are none", function()
    refused("load: /nonexistent: No such file or directory", ad.load, "/nonexistent")
    refused("Is a directory", ad.load, directory)
    bad("the file is empty", "")
    bad("neither a .npy nor a .npz", "hello")
    bad("neither a .npy nor a .npz", "\x93NUMP")
    bad("the contents are too short", "\x93NUMPY\1")
    bad("version 4.0", made("", "", 4))
    bad("version 1.7", "\x93NUMPY\1\7" .. ("<s2"):pack "")
    bad("contents are too short", "\x93NUMPY\1\0\xff\xff{")
    bad("contents are too short", "\x93NUMPY\1\0\xff")
    bad("a header of 4294967295 bytes", "\x93NUMPY\2\0\xff\xff\xff\xff{")
  end)

  it("refuses headers that say nothing clear", function()
    for _, header in ipairs {
      "", "{", "}", "{}", "nonsense", "{'descr': '<f8', 'shape': (1,)}",
      "{'descr': '<f8', 'fortran_order': 0, 'shape': (1,)}",
      "{'descr': '<f8', 'fortran_order': False, 'shape': 1}",
      "{'descr': '<f8', 'fortran_order': False, 'shape': (1)}",
      "{'descr': '<f8', 'fortran_order': False, 'shape': (,)}",
      "{'descr': '<f8', 'fortran_order': False, 'shape': (1,,)}",
      "{'descr': '<f8', 'fortran_order': False, 'shape': (1 1)}",
      "{'descr': '<f8', 'fortran_order': False, 'shape': (-1,)}",
      "{'descr': '<f8', 'fortran_order': False, 'shape': (1.0,)}",
      "{'descr': '<f8', 'fortran_order': False, 'shape': (99999999999999999999,)}",
      "{'descr': '<f8', 'fortran_order': False, 'shape': (1,)} x",
      "{'descr': '<f8', 'fortran_order': False, 'shape': (1,), 'more': 1}",
      "{'descr': '<f8', 'descr': '<f8', 'fortran_order': False, 'shape': (1,)}",
      "{'descr': '<f8' 'fortran_order': False, 'shape': (1,)}",
      "{'descr': None, 'fortran_order': False, 'shape': (1,)}",
    } do
      bad("the header cannot be understood", made(header, ("<d"):pack(1), 1))
    end
  end)

  it("refuses dtypes that are no real numbers, by name", function()
    for descr, kind in pairs {
      ["<c16"] = "complex", ["|O"] = "Python objects", ["<U5"] = "strings", ["|S3"] = "strings",
      ["<M8[ns]"] = "dates", ["<m8"] = "times", ["|V8"] = "raw data", ["<f16"] = "floats of",
    } do
      bad(("dtype '%s' (%s"):format(descr, kind), described(descr, "(1,)", ("x"):rep(16)))
    end
    bad("dtype '<i3' cannot be read", described("<i3", "(1,)", "abc"))
    bad("dtype '[('x', '<f8')]' cannot", made(
      "{'descr': [('x', '<f8')], 'fortran_order': False, 'shape': (1,), }", ("<d"):pack(1), 1))
  end)

  it("compares sizes before it allocates", function()
    local before = collectgarbage "count"
    bad("takes 8000000000000000 bytes, and there are 8",
      described("<f8", "(1000000000000000,)", ("<d"):pack(1)))
    bad("takes more than ", described("<f8", "(4294967296, 4294967296, 4294967296)", ""))
    bad("takes more than ", described("<f8", "(9223372036854775807,)", ""))
    bad("takes 16 bytes, and there are 8", described("<f8", "(2,)", ("<d"):pack(1)))
    bad("takes 16 bytes, and there are 24", described("<f8", "(2,)", ("<d"):pack(1):rep(3)))
    bad("takes 0 bytes", described("<f8", "(0, 9223372036854775807)", "x"))
    bad("takes 1 bytes, and there are 0", described("|i1", "()", ""))
    bad("9 dimensions", described("|i1", "(1,1,1,1,1,1,1,1,1)", "x"))
    assert.are.equal(0, ad.load(store(described("|i1",
      "(9223372036854775807, 0, 9223372036854775807)", ""))).size)
    assert.is_true(collectgarbage "count" < before + 2000)
  end)

  -- Stored archives to damage: fields by their place.
  local function archive(t)
    ad.save(file "z.npz", t)
    return bytes(file "z.npz")
  end
  local function patch(text, i, with) return text:sub(1, i - 1) .. with .. text:sub(i + #with) end

  it("refuses damaged archives", function()
    local text = archive { x = ad.arange(1, 4), y = 2 }
    local entry = text:find("PK\1\2", 1, true)
    local second = text:find("PK\1\2", entry + 4, true)
    local stop = #text - 21
    bad("the ZIP directory is damaged", "PK\3\4")
    bad("the ZIP directory is damaged", text:sub(1, -2))
    bad("the ZIP directory is damaged", text .. "x")
    bad("the ZIP directory is damaged", patch(text, entry, "XX"))
    bad("the ZIP directory is damaged", patch(text, stop + 4, "\1"))
    bad("the ZIP directory is damaged", patch(text, stop + 8, "\9"))
    bad("the ZIP directory is damaged", patch(text, stop + 8, "\9\0\9"))
    bad("the ZIP directory is damaged", patch(text, stop + 12, "\xff\xff\xff\xff"))
    bad("the ZIP directory is damaged", patch(text, stop + 16, "\xff\xff\xff\x7f"))
    bad("the ZIP directory is damaged", patch(text, second + 28, "\xff\xff"))
    bad("136 bytes are said to hold 4294967295",
      patch(text, second + 24, "\xff\xff\xff\xff"))
    bad("member 'x.npy' is not where", patch(text, 1, "PK\5\6"))
    bad("is not where it should be", patch(text, entry + 42, "\xff"))
    bad("is not where it should be", patch(text, second + 42, "\0\0"))
    bad("is not where it should be", patch(text, entry + 20, "\xff\xff\xff\x7f"))
    bad("member 'q.npy' is not where", patch(text, entry + 46, "q"))
    bad("two members are called 'x'",
      patch(patch(text, second + 46, "x"), text:find("y.npy", 1, true), "x"))
    bad("member 'x.npy' is encrypted", patch(text, entry + 8, "\1"))
    bad("member 'x.npy': the CRC-32 is wrong", patch(text, entry + 16, "\0\0\0"))
    bad("are said to hold", patch(text, entry + 24, "\0"))
    bad("member 'x.npy': compressed by method 12",
      patch(patch(text, entry + 10, "\12"), 9, "\12"))
    bad("member 'x.npy': the contents are too short", -- as inflate takes them
      patch(patch(text, entry + 10, "\8"), 9, "\8"))
    bad("member 'x.npy': it does not begin as", patch(text, 36, "X"))
    bad("member 'x.npy': the CRC-32 is wrong", patch(text, 36 + 128, "X"))
    local ok = text:sub(1, -3) .. "\3\0abc" -- a comment
    same(ad.arange(1, 4), ad.load(store(ok)).x)
  end)

  it("refuses damaged compressed data", function()
    local entry = compressed:find("PK\1\2", 1, true)
    local _, _, _, _, _, _, _, _, csize, usize = ("<I4I2I2I2I2I2I2I4I4I4"):unpack(compressed, entry)
    bad("the CRC-32 is wrong", patch(compressed, entry + 16, "\0\0\0"))
    bad("are said to hold", patch(compressed, entry + 24, "\xff\xff\xff\xff"))
    bad("takes ", patch(compressed, entry + 24, ("<I4"):pack(usize - 1)))
    bad("takes ", patch(compressed, entry + 24, ("<I4"):pack(usize + 1)))
    bad("the compressed data break off", patch(compressed, entry + 20, ("<I4"):pack(csize - 3)))
  end)

  it("refuses compressed data that end elsewhere than the contents", function()
    -- stored blocks, so that no deflate is needed to make them
    local contents = described("|i1", "(3,)", "\1\2\3")
    local function deflated(data, usize, rest)
      local block = "\1" .. ("<I2I2"):pack(#data, ~#data & 0xffff) .. data .. (rest or "")
      local name, crc = "x.npy", core.npy.crc(0, data:sub(1, usize))
      local head = ("<I4I2I2I2I2I2I4I4I4I2I2"):pack(0x04034b50, 20, 0, 8, 0, 33, crc, #block,
        usize, #name, 0) .. name
      local dir = ("<I4I2I2I2I2I2I2I4I4I4I2I2I2I2I2I4I4"):pack(0x02014b50, 20, 20, 0, 8, 0, 33, crc,
        #block, usize, #name, 0, 0, 0, 0, 0, 0) .. name
      return head .. block .. dir .. ("<I4I2I2I2I2I4I4I2"):pack(0x06054b50, 0, 0, 1, 1, #dir,
        #head + #block, 0)
    end
    assert.same({ 1, 2, 3 }, ad.load(store(deflated(contents, #contents))).x:tolist())
    bad("the contents are too long", deflated(contents .. "\4", #contents))
    bad("there is more behind the compressed data", deflated(contents, #contents, "x"))
    bad("the contents are too short",
      deflated(described("|i1", "(4,)", "\1\2\3"), #contents + 1))
  end)

  it("survives 10,000 damaged files", function()
    local rng = ad.random(20)
    local function draw(n) return rng:randint(1, n) end
    ad.save(file "z.npz", { x = ad.arange(1, 9), y = ad.eye(3), 5 })
    local limit = npy.limit
    npy.limit = 150
    ad.save(file "z64.npz", { x = ad.arange(1, 9), y = ad.eye(3), 5 })
    npy.limit = limit
    ad.save(file "a.npy", ad.array(specials))
    local seeds = {
      bytes(file "a.npy"), bytes(file "z.npz"), bytes(file "z64.npz"), compressed, compressed,
      described(">i2", "(2, 3)", "abcdefghijkl", true, 2),
    }
    local tokens = { "{", "}", "'", "descr", "'descr'", ":", "'<f8'", "'|b1'", "'shape'", "(", ")",
      ",", "1000000000000000", "3", "0", "'fortran_order'", "True", "False", " ", "L", "[", "]",
      "99999999999999999999999", "\0", "'<c8'", "-1" }
    local damage = {
      function(s) -- bits
        for _ = 1, draw(4) do
          local i = draw(#s)
          s = patch(s, i, string.char(s:byte(i) ~ 1 << draw(8) - 1))
        end
        return s
      end,
      function(s) return s:sub(1, draw(#s) - 1) end,
      function(s) return s:sub(draw(#s)) end,
      function(s) -- a field
        local n = ({ 1, 2, 4, 8 })[draw(4)]
        local i = draw(math.max(1, #s - n))
        return patch(s, i, (rng:randint(0, 1) == 0 and "\xff" or "\0"):rep(math.min(n, #s - i + 1)))
      end,
      function(s) -- a part twice, or left out
        local i, j = draw(#s), draw(#s)
        return s:sub(1, i) .. s:sub(j)
      end,
      function() -- headers
        local parts = {}
        for i = 1, draw(20) do parts[i] = tokens[draw(#tokens)] end
        return made(table.concat(parts), "12345678", draw(3))
      end,
      function() -- headers that are nearly right
        return described(({ "<f8", ">u2", "b1", "f", "<i8" })[draw(5)],
          ({ "(2,)", "(1, 1)", "()", "(8,)", "(0, 4)", "(4611686018427387904, 2)" })[draw(6)],
          ("x"):rep(draw(17) - 1), draw(2) == 1, draw(3))
      end,
    }
    collectgarbage()
    local before, worst, read, failed = collectgarbage "count", 0, 0, 0
    local path = file "test.npy"
    for _ = 1, 10000 do
      store(damage[draw(#damage)](seeds[draw(#seeds)]))
      local ok, e = pcall(ad.load, path)
      if ok then
        read = read + 1
      else
        failed = failed + 1
        assert.are.equal("load: " .. path .. ": ", e:sub(1, #path + 8))
      end
      worst = math.max(worst, collectgarbage "count" - before)
    end
    assert.is_true(failed > 5000 and read > 100, read .. " read")
    assert.is_true(worst < 100000, worst .. " KB")
  end)
end)

describe("ad.save", function()
  it("leaves the file as it was when writing fails, and nothing beside it", function()
    ad.save(file "kept.npy", ad.array { 1, 2 })
    local before = leftovers()
    local pipe <close> = assert(io.popen(("trap '' XFSZ; ulimit -f 16; lua5.4 -e '"
      .. "local ad = require \"autodiff\""
      .. " print(pcall(ad.save, \"%s\", ad.zeros(100000)))"
      .. " print(pcall(ad.save, \"%s\", {ad.zeros(100000)}))' 2>&1")
      :format(file "kept.npy", file "kept.npy")))
    local text = pipe:read "a"
    local _, count = text:gsub("false\tsave: " .. file "kept.npy":gsub("%p", "%%%0")
      .. ": File too large", "")
    assert.are.equal(2, count, text)
    same(ad.array { 1, 2 }, ad.load(file "kept.npy"))
    assert.are.equal(before, leftovers())
  end)

  it("reports a disk that is full, and where nothing can be written", function()
    if io.open "/dev/full" then
      refused("save: /dev/full: No space left on device", ad.save, "/dev/full", ad.zeros(5))
      refused("save: /dev/full: No space left on device", ad.save, "/dev/full", { ad.zeros(20000) })
    end
    refused("No such file or directory", ad.save, file "no/where.npy", 1)
    refused("Is a directory", ad.save, directory, 1)
    ad.save("/dev/null", ad.ones(3)) -- which is still there
    assert.are.equal("", bytes "/dev/null")
  end)

  it("writes through a link, and keeps a file's permissions", function()
    ad.save(file "target.npy", 1)
    assert(os.execute(("ln -s target.npy '%s' && chmod 640 '%s'"):format(file "link.npy",
      file "target.npy")))
    ad.save(file "link.npy", 2)
    assert.are.equal(2.0, ad.load(file "target.npy"))
    ad.save(file "target.npy", 3)
    local pipe <close> = io.popen(("ls -l '%s' '%s'"):format(file "link.npy", file "target.npy"))
    local text = pipe:read "a"
    assert.is_truthy(text:find "%-rw%-r%-%-%-%-%-")
    assert.is_truthy(text:find "link.npy %-> target.npy")
    assert.are.equal(3.0, ad.load(file "link.npy"))
  end)

  it("refuses arguments that cannot be saved", function()
    refused("bad argument #1 to 'save' (string expected, got nil)", ad.save)
    refused("bad argument #1 to 'save' (a path cannot contain zeros)", ad.save, "a\0b", 1)
    refused("bad argument #2 to 'save' (array expected, got nil)", ad.save, file "x.npy")
    refused("bad argument #2 to 'save' (array expected, got string)", ad.save, file "x.npy", "text")
    refused("(field 'k': array or number expected, got table)", ad.save, file "x.npy", { k = {} })
    refused("(field '1': array or number expected, got string)", ad.save, file "x.npy", { "x" })
    refused("key true: ", ad.save, file "x.npy", { [true] = 1 })
    refused("key 7: ", ad.save, file "x.npy", { [7] = 1 })
    refused("has to be UTF-8", ad.save, file "x.npy", { ["\xff"] = 1 })
    refused("without zeros", ad.save, file "x.npy", { ["a\0"] = 1 })
    refused("two arrays are called 'arr_0'", ad.save, file "x.npy", { 1, arr_0 = 2 })
    refused("more than 65520 bytes", ad.save, file "x.npy", { [("x"):rep(70000)] = 2 })
    refused("bad argument #1 to 'load' (string expected, got table)", ad.load, {})
    refused("bad argument #1 to 'load' (a path", ad.load, "a\0")
    assert.is_nil(io.open(file "x.npy"))
  end)
end)

if not python then return end

describe("NumPy", function()
  local function run(script, ...)
    store(script, "script.py")
    local words = { python, "'" .. file "script.py" .. "'" }
    for _, word in ipairs { ... } do words[#words + 1] = "'" .. word .. "'" end
    local pipe <close> = assert(io.popen(table.concat(words, " ") .. " 2>&1"))
    local text = pipe:read "a"
    assert.are.equal("", text)
  end

  it("writes the very bytes", function()
    local paths = {}
    for i, a in ipairs(examples()) do
      paths[i] = file("n" .. i .. ".npy")
      ad.save(paths[i], a)
    end
    paths[#paths + 1] = file "n.npy"
    ad.save(paths[#paths], 2.5)
    run([[
import sys, io, numpy as np
for path in sys.argv[1:]:
    text = open(path, "rb").read()
    out = io.BytesIO()
    np.save(out, np.load(path))
    if out.getvalue() != text: print(path, "differs")
]], table.unpack(paths))
  end)

  it("reads what was saved, and is read", function()
    local a, b = ad.array(specials), ad.random(3):normal(4, 5)
    ad.save(file "out.npz", { a, b, half = 0.5, ["ü"] = ad.zeros(0, 2) })
    run([[
import sys, zipfile, numpy as np
z = np.load(sys.argv[1])
assert z.files == ["arr_0", "arr_1", "half", "ü"], z.files
assert z["half"] == 0.5 and z["half"].shape == () and z["ü"].shape == (0, 2)
assert zipfile.ZipFile(sys.argv[1]).testzip() is None
np.savez(sys.argv[2], z["arr_0"], z["arr_1"], half=z["half"])
np.savez_compressed(sys.argv[3], z["arr_0"], z["arr_1"], big=np.arange(300000) % 1000,
                    f=np.asfortranarray(z["arr_1"]), e=z["arr_1"].astype(">f4"))
]], file "out.npz", file "back.npz", file "small.npz")
    for _, name in ipairs { "back.npz", "small.npz" } do
      local t = ad.load(file(name))
      same(a, t[1])
      same(b, t[2])
      if t.half then
        assert.are.equal(0.5, t.half)
      else
        same(b, t.f)
        assert.are.equal(299999 % 1000 + 0.0, t.big[-1])
        assert.are.equal(("<f"):unpack(("<f"):pack(b[{ 3, 2 }])), t.e[{ 3, 2 }])
      end
    end
  end)

  it("agrees about every dtype", function()
    run([[
import sys, numpy as np
rng = np.random.default_rng(1)
for kind in "f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8".split():
    for order in "<>":
        raw = rng.integers(0, 256, 8 * int(kind[1]) * 60, dtype=np.uint8).tobytes()
        a = np.frombuffer(raw, order + kind).reshape(8, 60)
        if order == ">": a = np.asfortranarray(a)
        np.save(sys.argv[1] + "/" + kind + ("b" if order == ">" else "l") + ".npy", a)
        with np.errstate(all="ignore"):
            np.save(sys.argv[1] + "/" + kind + ("b" if order == ">" else "l") + "8.npy",
                    np.ascontiguousarray(a.astype("<f8")))
]], directory)
    for kind in ("f2 f4 f8 i1 i2 i4 i8 u1 u2 u4 u8"):gmatch "%w+" do
      for _, order in ipairs { "l", "b" } do
        local a = ad.load(file(kind .. order .. ".npy"))
        local b = ad.load(file(kind .. order .. "8.npy"))
        assert.same({ 8, 60 }, a.shape)
        for i = 1, 8 do
          for j = 1, 60 do
            local x, y = a[{ i, j }], b[{ i, j }]
            assert.is_true(x == y and 1 / x == 1 / y or x ~= x and y ~= y, kind)
          end
        end
      end
    end
  end)
end)
