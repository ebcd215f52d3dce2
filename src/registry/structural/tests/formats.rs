//! Formats of strings: what is one and what is none.

use crate::registry::string_formats::matches;

#[test]
fn formats_are_told_apart() {
    for (format, good, bad) in [
        ("date", &["2024-02-29"][..], &["2023-02-29", "2024-1-01", "x", ""][..]),
        (
            "date-time",
            &["2014-12-15T19:30:20.000Z", "2014-12-15t19:30:20+01:00"],
            &["2014-12-15", "2014-12-15T24:00:00Z", ""],
        ),
        ("ipv4", &["1.2.3.4", "01.2.3.4"], &["1.2.3", "1.2.3.256", "::1", ""]),
        (
            "ipv6",
            &["::1", "fe80::1", "::ffff:1.2.3.4"],
            &["1.2.3.4", "fe80::1%eth0", ":"],
        ),
        (
            "cidr",
            &["10.0.0.0/8", "::/0", "010.0.0.0/08"],
            &["10.0.0.0", "10.0.0.0/33", "::/129"],
        ),
        (
            "mac",
            &["01:23:45:67:89:ab", "0123.4567.89ab"],
            &["01:23", "0123:4567:89ab"],
        ),
        (
            "uuid",
            &[
                "123e4567-e89b-12d3-a456-426614174000",
                "123E4567E89B12D3A456426614174000",
            ],
            &["123e4567"],
        ),
        (
            "uuid4",
            &["123e4567-e89b-42d3-a456-426614174000"],
            &["123e4567-e89b-12d3-a456-426614174000"],
        ),
        ("byte", &["aGVsbG8=", "aGVs"], &["a", "", "aGV$"]),
        ("email", &["a@b.c", "A B <a@b>"], &["a", "a@", "@b", "a b@c"]),
        (
            "uri",
            &["http://a/b?c", "/path", "mailto:a", "https://[::1]:80/"],
            &["a/b", "http://[::1", "", "http://a:b/", "/%zz"],
        ),
        (
            "duration",
            &["1h", "1.5s", "3 days", "2 weeks", "-1m30s"],
            &["1", "x", "1 parsec"],
        ),
        (
            "hostname",
            &["example.com", "localhost", "1a"],
            &["-a", "a..b", "a.c1", "exa_mple.com"],
        ),
        ("isbn", &["0321751043", "978-0321751041"], &["0321751044", "x"]),
        ("creditcard", &["4111-1111-1111-1111"], &["4111-1111-1111-1112"]),
        ("ssn", &["111-11-1111"], &["111111111", "x"]),
        ("hexcolor", &["#FFF", "00ff00"], &["#FFFF"]),
        ("rgbcolor", &["rgb(1, 2,255)"], &["rgb(1,2,256)", "rgb(1,2)"]),
        ("k8s-short-name", &["a-b1"], &["A", "-a", "a.b"]),
        ("k8s-long-name", &["a.b-c"], &["a..b", "A.b"]),
        ("password", &["anything"], &[]),
    ] {
        for text in good {
            assert!(matches(format, text), "{format} {text:?}");
        }
        for text in bad {
            assert!(!matches(format, text), "{format} {text:?}");
        }
    }
}
