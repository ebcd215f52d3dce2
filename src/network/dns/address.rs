//! An address of this host that only the host and its pods know (upstream: NodeLocal DNSCache's interface).

use rtnetlink::Error;
use std::net::Ipv4Addr;
use tokio_util::task::AbortOnDropHandle;

/// Index of the loopback interface.
const LOOPBACK: u32 = 1;
const PREFIX: u8 = 32;

fn connect() -> Result<(rtnetlink::Handle, AbortOnDropHandle<()>), Error> {
    let failed = |error: std::io::Error| Error::InvalidNla(error.to_string());
    let (connection, handle, _) = rtnetlink::new_connection().map_err(failed)?;
    Ok((handle, AbortOnDropHandle::new(tokio::spawn(connection))))
}

/// That it is there already is fine.
pub async fn add(address: Ipv4Addr) -> Result<(), Error> {
    let (handle, _connection) = connect()?;
    let added = handle.address().add(LOOPBACK, address.into(), PREFIX).execute().await;
    unless(added, libc::EEXIST)
}

/// That it is gone already is fine.
pub async fn delete(address: Ipv4Addr) -> Result<(), Error> {
    use futures_util::TryStreamExt;
    let (handle, _connection) = connect()?;
    let listed = handle.address().get().set_address_filter(address.into()).execute();
    let found: Vec<_> = listed.try_collect().await?;
    for message in found.into_iter().filter(|message| message.header.index == LOOPBACK) {
        unless(handle.address().del(message).execute().await, libc::EADDRNOTAVAIL)?;
    }
    Ok(())
}

fn unless(result: Result<(), Error>, errno: i32) -> Result<(), Error> {
    match result {
        Err(Error::NetlinkError(message)) if message.raw_code() == -errno => Ok(()),
        other => other,
    }
}
