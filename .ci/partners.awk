# The part of .ci/check-partners that reads the files and compares. Written for any POSIX awk, and for C and Rust as this
# repository formats them: an item starts in column 1, a method in column 5, and `}` in column 1 ends an item.
#
#     awk -v root=DIRECTORY/ -v constants=FILE -f partners.awk EXCEPTIONS C-FILE RUST-FILE...

function problem(text) {
    print "check-partners: " text >"/dev/stderr"
    problems++
}

# snake("PeerProgress") is "peer_progress".
function snake(name,    result, i, letter) {
    for (i = 1; i <= length(name); i++) {
        letter = substr(name, i, 1)
        result = result (letter ~ /[A-Z]/ ? (i > 1 ? "_" : "") tolower(letter) : letter)
    }
    return result
}

# The type of `impl<A: B<C>> Type<D> {`, or of `impl Trait for Type {`.
function type_of(header,    depth, i, letter, plain) {
    for (i = 1; i <= length(header); i++) {
        letter = substr(header, i, 1)
        if (letter == "<") depth++
        else if (letter == ">" && substr(header, i - 1, 1) != "-") depth--
        else if (!depth) plain = plain letter
    }
    sub(/^impl */, "", plain)
    is_trait = plain ~ / for /
    sub(/.* for /, "", plain)
    sub(/[ {].*/, "", plain)
    sub(/.*::/, "", plain)
    return plain
}

FNR == 1 { file_number++; is_test = 0; type = ""; open = "" }

# --- The exceptions: a reason that ends with a colon, then indented names; C functions end with (). ---

file_number == 1 && /^(#|$)/ { next }
file_number == 1 && /^sections:/ { in_order = 1; next }
file_number == 1 && /^[^ ]/ { in_order = 0; reason = $0; sub(/:$/, "", reason); next }
file_number == 1 && in_order { for (i = 1; i <= NF; i++) order[$i] = ++order_count; next }
file_number == 1 {
    for (i = 1; i <= NF; i++) {
        if ($i in excepted) problem("partners.txt lists " $i " twice")
        excepted[$i] = reason
    }
    next
}

# --- The C file ---

# Returns a line of C without comments and literals. `in_comment` says whether the next line begins in a comment.
function bare(text,    result, i, letter, pair, quote) {
    for (i = 1; i <= length(text); i++) {
        letter = substr(text, i, 1)
        pair = substr(text, i, 2)
        if (in_comment) {
            if (pair == "*/") { in_comment = 0; i++ }
        } else if (quote != "") {
            if (letter == "\\") i++
            else if (letter == quote) quote = ""
        } else if (pair == "/*") {
            in_comment = 1
            i++
        } else if (pair == "//") {
            break
        } else {
            if (letter == "\"" || letter == "\047") quote = letter
            result = result letter
        }
    }
    sub(/ +$/, "", result)
    return result
}

# A function in any other layout would not be seen below. At file scope a line is one of: the house layout of a function or prototype, a
# declaration without parentheses, the beginning or the end of a block, a system header, a constant of the preprocessor.
file_number == 2 {
    began_in_comment = in_comment
    code = bare($0)
    before = lowest = depth
    for (i = 1; i <= length(code); i++) {
        if (substr(code, i, 1) == "{") depth++
        if (substr(code, i, 1) == "}" && --depth < lowest) lowest = depth
    }
    if (code ~ /^[ \t]*#/)
        is_house = code ~ /^#(include <[a-z0-9_\/]+\.h>|define [A-Z_][A-Za-z0-9_]*( [A-Za-z0-9_]+)?)$/ && depth == before
    else if (before == 0 && code != "")
        is_house = !began_in_comment && (code ~ /^(static |int main)[^={};]*\([^={};]*[;{]$/ \
            || code ~ /^(static|enum|struct|union|typedef) [^()]*[;{]$/)
    else if (lowest == 0 && before > 0)
        is_house = code ~ /^\}( [a-z_]+)?( = [^()]*)?;?$/
    else
        is_house = 1
    if (!is_house)
        problem("edgecho.c:" FNR ": write a function as \047static int name(int a) {\047 on one line, its body on the lines below: " $0)
}

file_number == 2 && /^\/\* ---- / {
    title = $0
    gsub(/^\/\* ---- | ---- \*\/$/, "", title)
    section = title ~ /\.rs$/ || title ~ /^No Rust file/ ? title : ""
    in_constants = title ~ /^Constants/
    if (section ~ /\.rs$/) {
        sections[++section_count] = section
        if (!(section in order))
            problem("partners.txt does not list the section " section)
        else if (order[section] < last_order)
            problem("the section " section " is out of order: partners.txt lists it earlier")
        else
            last_order = order[section]
        in_order_of_c[section] = 1
    }
    next
}
file_number == 2 && in_constants && /^    [A-Z0-9_]+ = [^,]+,/ {
    name = $1
    value = $0
    sub(/^[^=]*= /, "", value)
    sub(/,.*/, "", value)
    c_constant[name] = value
    next
}
file_number == 2 && /^\/\* [a-z_\/]+\.rs \*\/$/ { prototype_section = $2; next }
file_number == 2 && /^(static |int main)[^=]*\([^=]*[;{]$/ {
    name = $0
    sub(/\(.*/, "", name)
    sub(/.*[ *]/, "", name)
    if (/;$/) {
        prototypes[++prototype_count] = prototype_section " " name
    } else if (name != "main") {
        if (section == "") problem(name " is in no section")
        c_name[++c_count] = name
        c_section[c_count] = section
        c_index[section, name] = c_count
        if (section ~ /\.rs$/) definitions[++definition_count] = section " " name
    }
    next
}
file_number == 2 { next }

# --- The Rust files ---

FNR == 1 { file = FILENAME; sub(root, "", file) }
/^ *#\[cfg\(test\)\]/ { is_test = 1; test_indent = match($0, /[^ ]/) - 1; next }
# A test item ends with its brace, or at once if it has none.
is_test { if (match($0, /[^ ]/) - 1 == test_indent && /^ *\}|[;,]$/) is_test = 0; next }
/^impl/ { type = type_of($0); is_optional = is_trait; next }
/^(pub(\([a-z_: ]*\))? )?trait / { type = $0; sub(/.*trait /, "", type); sub(/[^A-Za-z0-9].*/, "", type); is_optional = 1; next }
/^\}/ { type = "" }
/^(    )?(pub(\([a-z_: ]*\))? )?(const )?(async )?fn / {
    name = $0
    sub(/.*fn /, "", name)
    sub(/[^A-Za-z0-9_].*/, "", name)
    is_method = /^    / && type != ""
    rust_name[++rust_count] = is_method ? type "::" name : name
    rust_partner[rust_count] = is_method ? snake(type) "_" name : name
    rust_file[rust_count] = file
    rust_optional[rust_count] = (is_method && is_optional) || (is_method && name == "new")
    in_signature = is_method
    if (!/[{;]$/) next
}
# A method with a body of one line needs no partner.
in_signature && /[{;]$/ { in_signature = 0; body = /\{$/ ? FNR : 0; next }
body && FNR == body + 2 { if (/^    \}$/) rust_optional[rust_count] = 1; body = 0 }

# --- The comparison ---

function row(c, rust, note) { printf "    %-32s %-36s %s\n", c, rust, note }

function exception(name) {
    used[name] = 1
    return excepted[name]
}

END {
    for (s = 1; s <= section_count; s++) {
        section = sections[s]
        print section
        last = 0
        for (r = 1; r <= rust_count; r++) {
            if (rust_file[r] != section) continue
            c = c_index[section, rust_partner[r]]
            if (c) {
                # C functions that come before this partner and have none of their own.
                for (i = last + 1; i < c; i++)
                    if (c_section[i] == section && !paired[i] && (c_name[i] "()") in excepted && !printed[i]++)
                        row(c_name[i], "-", exception(c_name[i] "()"))
                row(c_name[c], rust_name[r], "")
                pairs++
                paired[c] = 1
                if (c < last)
                    problem(section ": " c_name[c] " is out of order: " rust_name[r] " comes later in the Rust file")
                if (c > last) last = c
            } else if (rust_name[r] in excepted) {
                row("-", rust_name[r], exception(rust_name[r]))
            } else if (!rust_optional[r]) {
                row("-", rust_name[r], "NO PARTNER")
                problem("src/" section ": " rust_name[r] " has no partner " rust_partner[r] " in the C reference")
            }
        }
        for (i = 1; i <= c_count; i++) {
            if (c_section[i] != section || paired[i] || printed[i]) continue
            if ((c_name[i] "()") in excepted) {
                row(c_name[i], "-", exception(c_name[i] "()"))
            } else {
                row(c_name[i], "-", "NO PARTNER")
                problem(section ": " c_name[i] " has no partner in src/" section)
            }
        }
    }
    print "without a Rust file"
    for (i = 1; i <= c_count; i++) {
        if (c_section[i] ~ /\.rs$/) continue
        row(c_name[i], "-", exception(c_name[i] "()"))
        if (!((c_name[i] "()") in excepted)) problem(c_name[i] " is in no section of a Rust file")
    }
    for (name in order)
        if (!(name in in_order_of_c)) problem("partners.txt lists the section " name ", which the C reference does not have")

    for (i = 1; i <= prototype_count || i <= definition_count; i++)
        if (prototypes[i] != definitions[i]) {
            problem("the prototypes differ from the functions: '" prototypes[i] "' instead of '" definitions[i] "'")
            break
        }

    print "constants"
    while ((getline line < constants) > 0) {
        name = line
        sub(/^const /, "", name)
        sub(/:.*/, "", name)
        value = line
        sub(/^[^=]*= /, "", value)
        sub(/;.*/, "", value)
        gsub(/_/, "", value)
        if (value ~ /^Duration::from(secs|millis)\([0-9]+\)$/) {
            number = value
            gsub(/[^0-9]/, "", number)
            value = value ~ /secs/ ? number * 1000 : number
            name = name "_MS"
        }
        rust_constant[name] = value
    }
    for (name in c_constant) {
        if (name in rust_constant && rust_constant[name] == c_constant[name])
            matched++
        else if (name in excepted)
            row(name, "-", exception(name))
        else
            problem("the constant " name " is " c_constant[name] " in C and " \
                (name in rust_constant ? rust_constant[name] : "missing") " in Rust")
    }
    for (name in excepted)
        if (!(name in used)) problem("partners.txt lists " name ", which has a partner, needs none, or does not exist")
    printf "%d pairs of functions, %d equal constants, %d exceptions\n", pairs, matched, length_of(used)
    exit problems > 0
}

function length_of(array,    name, count) {
    for (name in array) count++
    return count + 0
}
