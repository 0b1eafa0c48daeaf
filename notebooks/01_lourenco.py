# ---
# jupyter:
#   jupytext:
#     text_representation:
#       extension: .py
#       format_name: percent
#   kernelspec:
#     display_name: Python 3
#     language: python
#     name: python3
# ---

# %% [markdown]
# # Garimpo do Lourenço: a gold district from plain rasters to the report
#
# Gold has been dug near Lourenço, in the north of Amapá, Brazil, for more than a century. This
# notebook follows the district through 38 years of land cover: which ground was turned into mine,
# when, what grew there before, and what came back.
#
# - **Land cover**: MapBiomas Collection 8, 38 bands 1985–2022 of 29.9 m over a box of 40 × 40 km
#   (Projeto MapBiomas, CC BY).
# - **Mining titles**: SIGMINE polygons of Amapá, 2021: requests, permits and concessions (ANM,
#   open government data).
# - **Detections**: Amazon Mining Watch polygons 2018–2025, from Sentinel-2 (Earth Genome,
#   CC BY 4.0).
#
# There is no imagery and there are no night lights here. Those layers stay missing throughout.

# %%
import os
import sys
from pathlib import Path

import geopandas as gpd
import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import rasterio
from matplotlib.colors import ListedColormap, Normalize
from shapely.geometry import box

import minetrace as mt
from minetrace.report.figures import annual_change, site_maps, site_series, status_map
from minetrace.report.maps import index_maps
from minetrace.sites import geodesic_area_km2

HERE = Path(__file__).resolve().parent if "__file__" in globals() else Path.cwd()
sys.path.insert(0, str(HERE.parent / "tests"))
import realdata

OUT = Path(os.environ.get("MINETRACE_NOTEBOOK_OUT", HERE / "out")) / "01_lourenco"
OUT.mkdir(parents=True, exist_ok=True)

try:
    RASTER = realdata.find(realdata.LOURENCO)
    TITLES = realdata.find(realdata.TITLES)
    DETECTIONS = realdata.find(realdata.DETECTIONS)
except FileNotFoundError as absent:
    raise SystemExit(f"This notebook {absent}.") from None

# %% [markdown]
# ## Catalogue
#
# A STAC catalogue is built once from the plain raster: one item per band, its year taken from the
# band's description. Every pixel is checked against the legend, so a code that the legend does not
# know stops here and not in a result.
#
# The legend says what counts as what. `mapbiomas_c8` follows the grouping of Xu et al., made for
# another product: *Mining*, *Urban Area* and other bare ground are mine-related, **and so is
# water**, because pits fill with it. That takes in rivers too: *River, Lake and Ocean* is 0.02 %
# of this box, but look at it before you trust a site by a river. *Pasture* counts as grassland.

# %%
catalog = mt.build_catalog([RASTER], OUT / "catalog", legend="mapbiomas_c8")
legend = mt.schema.load_legend("mapbiomas_c8")
pd.DataFrame(
    [(c.code, c.name, c.group, c.cover or "") for c in legend.classes if c.group == "mine"],
    columns=["code", "class", "group", "cover"],
)

# %% [markdown]
# A recipe names the source, the legend and the years. Everything that it leaves out has its
# default, which `mt.schema.load_recipe` shows.

# %%
recipe_file = OUT / "lourenco.toml"
recipe_file.write_text(
    """
years = [1985, 2022]
[landcover]
source = "catalog"
legend = "mapbiomas_c8"
[status]
years = [2018, 2022]
"""
)
recipe = mt.schema.load_recipe(recipe_file)
print(recipe.change)
print(recipe.status)

# %% [markdown]
# ## Sites
#
# Two inventories that mean different things. A **title** is a legal claim: most hold no pit at
# all, and where there is one it is a small part. A **detection** is what a classifier saw, in
# patches of some 480 m. Bare surface as a share of a title therefore says little about the mine;
# as a share of a detection, much more. Both are kept, side by side: they overlap, so their areas
# must not be added up.
#
# Detections of different years that touch become one site. Titles are named by their process, and
# a process of several pieces is one site.

# %%
with rasterio.open(RASTER) as src:
    frame = gpd.GeoSeries([box(*src.bounds)], crs=src.crs)
outline = frame.segmentize(500).to_crs(4326).iloc[0]

titles = mt.read_sites(TITLES, layer=realdata.TITLES_LAYER)
titles = titles[titles.intersects(outline)]
titles = titles[["PROCESSO", "country", "geometry"]].dissolve("PROCESSO", as_index=False)
titles = titles.rename(columns={"PROCESSO": "site_id"}).assign(
    source="title", area_km2=lambda t: geodesic_area_km2(t.geometry)
)
detections = mt.read_sites(DETECTIONS)
detections = mt.merge_sites(detections[detections.intersects(outline)]).assign(source="detection")
columns = ["site_id", "area_km2", "source", "country", "geometry"]
sites = gpd.GeoDataFrame(pd.concat([titles[columns], detections[columns]], ignore_index=True))
sites.groupby("source")["area_km2"].describe()[["count", "min", "50%", "max"]].round(2)

# %% [markdown]
# ## One site, lazily
#
# `open_cube` reads metadata only. The tree below holds graphs, not pixels; each computation reads
# what it needs.

# %%
largest = detections.loc[[detections["area_km2"].idxmax()]]
cube = mt.open_cube(largest, recipe)
landcover = cube["landcover/landcover"]
print(cube)

# %%
codes = landcover.compute()
classes = mt.class_areas(codes, largest, legend=legend).pivot(
    index="year", columns="name", values="area_km2"
)
classes.loc[[1985, 1990, 2000, 2010, 2022]].round(2)

# %% [markdown]
# ## The whole district, pixel by pixel
#
# A pixel is *disturbed* in the year in which it is first seen as mine-related after having been
# vegetated, and *reclaimed* the other way round. Ground that was already mine in 1985 has no year.

# %%
district = mt.open_cube(outline, recipe)["landcover/landcover"].compute()
changes = mt.transitions(district, legend=legend)

figure, panes = plt.subplots(1, 2, figsize=(8, 5.4), layout="constrained", sharey=True)
ground = np.where(district[0] > 0, 1.0, np.nan)
old = np.isin(district[0], [c.code for c in legend.classes if c.group == "mine"])
extent = np.array([district.x[0], district.x[-1], district.y[-1], district.y[0]]) / 1000
for pane, name, title in zip(
    panes,
    ("first_development", "first_reclamation"),
    ("First disturbance", "First reclamation"),
    strict=True,
):
    pane.imshow(ground, cmap=ListedColormap(["#eceae6"]), extent=extent)
    pane.imshow(np.ma.masked_equal(old, 0), cmap=ListedColormap(["#b9b3a8"]), extent=extent)
    drawn = pane.imshow(
        np.ma.masked_equal(changes[name], 0),
        cmap="viridis_r",
        norm=Normalize(1985, 2022),
        extent=extent,
        interpolation="nearest",
    )
    pane.set_title(title, loc="left")
    pane.set(xlim=(418, 434), ylim=(247, 273), xlabel="easting, km (UTM 22 N)")
panes[0].set_ylabel("northing, km")
figure.colorbar(drawn, ax=panes, label="year", shrink=0.8)
figure.suptitle("Lourenço; dark grey: mine-related already in 1985", x=0.02, ha="left", fontsize=10)
figure.savefig(OUT / "pixels.png", dpi=150)
figure

# %% [markdown]
# ## Disturbance and reclamation by year
#
# One site that is the whole box. Event sums count a pixel each time it flips; the unique areas
# count ground once. The difference is small here, which speaks against flicker.

# %%
whole = gpd.GeoDataFrame({"site_id": ["box"]}, geometry=[outline], crs=4326)
areas = mt.transition_areas(district, whole, legend=legend)
by_year = areas.groupby("year")[["development_km2", "reclamation_km2"]].sum()
figure = annual_change(areas)
figure.savefig(OUT / "annual_change.png", dpi=150)
figure

# %%
totals = areas.filter(like="km2").sum().round(2)
print(totals.to_string())
print((by_year["development_km2"] / by_year["development_km2"].sum()).nlargest(4).round(3))

# %% [markdown]
# Two years hold most of the disturbance: 1988 and 1992. **Mines do not grow like that.** The
# number of mining pixels stands still for years and then jumps by 45 and 30 %, which is how a
# classification behaves that was drawn in a few epochs and carried over to the years between. Read
# the years before about 1998 as epochs; the growth from then on is gradual.

# %%
mining = (district == 30).sum(("y", "x")).to_series()
mining.index = mining.index.year
print(mining.loc[[1985, 1987, 1988, 1991, 1992, 1997, 1998, 2010, 2022]].to_string())

# %% [markdown]
# ## All sites
#
# The batch engine does for every site what was done above for one, and gives the same numbers.
# Sites partly outside the raster are kept, and recorded as gaps with the share that was observed.

# %%
run = mt.run_sites(sites, recipe, OUT / "run")
print(f"{run.n_sites} sites, {len(run.failures)} gaps")
run.failures[["site_id", "reason"]].head()

# %%
table = gpd.read_parquet(run.folder / "site_table.parquet")
panel = pd.read_parquet(run.folder / "site_panel.parquet")
moves = pd.read_parquet(run.folder / "transition_areas.parquet")
table = table.merge(sites[["site_id", "source"]], on="site_id")

biggest = table[table["source"] == "detection"].nlargest(6, "development_unique_km2")
figure, pane = plt.subplots(figsize=(7.2, 3.4), layout="constrained")
for site_id, rows in panel[panel["site_id"].isin(biggest["site_id"])].groupby("site_id"):
    pane.plot(rows["year"], 100 * rows["bsp"], lw=1.2, label=site_id)
pane.set_title(
    "Bare surface of the six detections with most disturbance, %", loc="left", fontsize=9
)
pane.set(ylim=(0, None), xlim=(1985, 2022))
pane.grid(axis="y", lw=0.4)
pane.spines[["top", "right"]].set_visible(False)
pane.legend(frameon=False, fontsize=7, ncols=2)
figure.savefig(OUT / "bare_surface.png", dpi=150)
figure

# %%
maps = index_maps(sorted((run.folder / "maps").glob("*.tif")))
first = biggest.iloc[0]
figure = site_maps(
    first.geometry, maps, legend=legend, layers=tuple(range(1985, 2023)), years=recipe.years
)
figure.savefig(OUT / "biggest_maps.png", dpi=150)
figure

# %%
figure = site_series(panel, first, transition_areas=moves, status_years=recipe.status.years)
figure.savefig(OUT / "biggest_series.png", dpi=150)
figure

# %% [markdown]
# ## Active or closed?
#
# With land cover alone, one trend of the three is left: bare surface 2018–2022. Five values are
# very few. The smallest exact p that a Mann-Kendall test can reach with n = 5 is 2/120 = 0.0167,
# where every year is above, or below, the one before; without ties, one step out of order already
# gives 0.083. So *undefined* does not mean that nothing happens: **the test has next to no
# power**, and it is blind to sites that stay bare because they are fully dug.

# %%
print(pd.crosstab(table["source"], table["status"]).to_string())
shown = ["site_id", "source", "area_km2", "stage", "status", "bsp_slope", "bsp_p", "n_years_bsp"]
table[table["status"] != "undefined"][shown].round(5)

# %%
figure = status_map(table, maps=maps, years=recipe.years)
figure.savefig(OUT / "status_map.png", dpi=150)
figure

# %% [markdown]
# ## Report
#
# One file with the maps, series and tables of the run; it opens anywhere.

# %%
report = mt.report.write_report(run.folder, title="Garimpo do Lourenço, 1985–2022")
print(f"{report.name}: {report.stat().st_size / 1e6:.1f} MB")

# %% [markdown]
# ## Before you quote a number
#
# - Titles are far larger than pits, and titles and detections overlap: never add their areas.
# - Water counts as mine-related; by a river check the classes with `mt.class_areas`.
# - Disturbance of 1988 and 1992 belongs to epochs, not to years.
# - Detections were made from 2018 on. What was mined and had grown over by then is in no site, so
#   reclamation is underestimated; the whole box above has it.
# - Status rests on five values of one layer. Add NDVI and night lights before you call a mine
#   closed.
